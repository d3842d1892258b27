"""How the page looks and reads: to people who see it, at each width, and to those who hear it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from playwright.sync_api import Page, Response, expect

from tests.browser.conftest import SCREENSHOTS
from tests.browser.test_flows import REFUSED, answered, choose, to_view
from tests.conftest import ROOT

Open = Callable[..., Page]
WIDTHS = (390, 768, 1440)
NARROWEST = 320
THEMES = ("light", "dark")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AXE = {"runOnly": RULES, "resultTypes": ["violations"], "preload": False}
MOST_BYTES = 150_000


def explained(page: Page) -> None:
    expect(page.locator("#trust")).to_be_visible()
    expect(page.locator(".explanation[aria-busy=false] img")).to_have_count(2)


READY: dict[str, Callable[[Page], None]] = {
    "start": lambda page: expect(page.locator(".welcome [id^=example-]")).to_have_count(4),
    "see": lambda page: expect(page.locator(".bar")).to_have_count(5),
    "why": explained,
    "inside": lambda page: expect(page.locator(".one canvas.kernel")).to_be_visible(),
    "softmax": lambda page: expect(page.locator(".softmax tbody tr")).to_have_count(10),
    "compare": lambda page: expect(page.locator(".explanation[aria-busy=false] img")).to_have_count(2),
    "models": lambda page: expect(page.locator(".version")).to_have_count(2),
}


def looked_at(page: Page, name: str, theme: str, widths: Sequence[int] = WIDTHS) -> None:
    """Leaves screenshots; it fits each width, and axe finds nothing that keeps anybody from reading it."""
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")  # type: ignore[arg-type]
    if page.evaluate("() => typeof axe === 'undefined'"):
        page.evaluate(AXE_SCRIPT)
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        # What lies over the page does so over what is seen of it.
        whole = page.locator("dialog[open]").count() == 0
        page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{theme}.png", full_page=whole)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, f"wider than {width}"
        found = AxeResults(page.evaluate("(options) => axe.run(document, options)", AXE))
        assert not found.response["violations"], f"{name}, {width}, {theme}: {found.generate_report()}"
    # 1280 pixels at 400 %.
    page.set_viewport_size({"width": NARROWEST, "height": 256})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= NARROWEST


@pytest.mark.parametrize("view", READY)
def test_each_view_fits_and_can_be_read_by_everyone(open_page: Open, served: str, lemon: str, view: str) -> None:
    query = {"start": "", "softmax": f"?image_id={lemon}&view=inside&layer=~softmax"}
    page = open_page(f"{served}/{query.get(view, f'?image_id={lemon}&view={view}')}")
    READY[view](page)
    looked_at(page, view, "light")
    # Words of another length, drawn anew.
    page.evaluate("() => document.getElementById('view-title').setAttribute('data-english', '')")
    page.get_by_role("button", name="Deutsch").click()
    expect(page.locator("[data-english]")).to_have_count(0)
    READY[view](page)
    looked_at(page, view, "dark")


def test_what_opens_and_what_is_refused_can_be_read_by_everyone(
    open_page: Open, served: str, lemon: str, tmp_path: Path
) -> None:
    page = open_page(f"{served}/?image_id={lemon}&view=inside&layer=none&aspect=filters", expected=REFUSED)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("img", name="The filters of the 32 channels")).to_be_visible()
    expect(page.get_by_role("img", name="The filter of channel")).to_be_visible()

    def both(name: str) -> None:
        for theme in THEMES:
            looked_at(page, name, theme)

    both("filters")
    # In the reader's own colours what is chosen still differs from what is not.
    page.emulate_media(forced_colors="active")
    ground = "(element) => getComputedStyle(element).backgroundColor"
    assert page.locator("#aspect-filters").evaluate(ground) != page.locator("#aspect-maps").evaluate(ground)
    page.emulate_media(forced_colors="none")
    page.get_by_role("button", name="Photograph").click()
    camera = page.get_by_role("dialog", name="Photograph")
    expect(camera).to_be_visible()
    both("camera")
    camera.get_by_role("button", name="Cancel").click()
    page.evaluate("() => void import('/web/api.js').then(({ access }) => access.demand(true))")
    key = page.get_by_role("dialog", name="This service asks for a key")
    expect(key).to_be_visible()
    both("key")
    key.get_by_role("button", name="Cancel").click()
    (tmp_path / "words.png").write_text("words")
    choose(page, tmp_path / "words.png")
    page.get_by_role("alert").get_by_text("What the service said").click()
    # In the place of what no browser could show.
    expect(page.locator(".unseen")).to_have_count(1)
    both("problem")
    to_view(page, "Models")
    READY["models"](page)
    for summary in page.locator("#view summary").all():
        summary.click()
    expect(page.locator(".report")).to_have_count(2)
    expect(page.locator(".diagram")).to_have_count(2)
    both("reports")


def test_the_first_visit_is_light_and_asks_no_other_host(open_page: Open, served: str) -> None:
    # German has the longer words.
    page = open_page("about:blank", locale="de-DE")
    came: list[Response] = []
    page.on("response", lambda response: came.append(response))
    page.goto(served)
    READY["start"](page)
    page.wait_for_load_state("networkidle")
    assert all(response.url.startswith(served) for response in came)
    assert sum(len(response.body()) for response in came) < MOST_BYTES
    # What it is made of, also where a browser has asked for no icon yet.
    made_of = {response.url: response.body() for response in came if response.url != f"{served}/models"}
    made_of[f"{served}/web/icon.svg"] = httpx.get(f"{served}/web/icon.svg").content
    size = f"{len(made_of)} files, {sum(map(len, made_of.values())) / 1000:.0f} kB uncompressed"
    assert size in (ROOT / "README.md").read_text(encoding="utf-8")


def test_an_answer_is_told_to_who_cannot_see_it(open_page: Open, served: str) -> None:
    page = open_page(served)
    page.get_by_role("button", name="Example: a lemon").click()
    answered(page, "Lemon")
    expect(page.get_by_role("status").filter(has_text="lemon.jpg: Lemon")).to_have_count(1)
