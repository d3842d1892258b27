"""How the page looks and reads: to people who see it, at each width, and to those who hear it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Response, expect

from tests.browser.conftest import SCREENSHOTS
from tests.browser.test_flows import answered

Open = Callable[..., Page]
WIDTHS = (390, 768, 1440)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
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


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", READY)
def test_each_view_fits_and_can_be_read_by_everyone(
    open_page: Open, served: str, lemon: str, view: str, theme: str
) -> None:
    query = {"start": "", "softmax": f"?image_id={lemon}&view=inside&layer=~softmax"}
    address = f"{served}/{query.get(view, f'?image_id={lemon}&view={view}')}"
    page = open_page(address, color_scheme=theme, locale="de-DE" if theme == "dark" else "en-GB")
    READY[view](page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=SCREENSHOTS / f"{view}-{width}-{theme}.png", full_page=True)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, f"wider than {width}"
        if width == 768:
            continue
        found = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]})
        assert not found.response["violations"], found.generate_report()


def test_the_first_visit_is_light_and_asks_no_other_host(open_page: Open, served: str) -> None:
    page = open_page("about:blank")
    came: list[Response] = []
    page.on("response", lambda response: came.append(response))
    page.goto(served)
    READY["start"](page)
    page.wait_for_load_state("networkidle")
    assert all(response.url.startswith(served) for response in came)
    assert sum(len(response.body()) for response in came) < MOST_BYTES


def test_an_answer_is_told_to_who_cannot_see_it(open_page: Open, served: str) -> None:
    page = open_page(served)
    page.get_by_role("button", name="Example: a lemon").click()
    answered(page, "Lemon")
    expect(page.get_by_role("status").filter(has_text="lemon.jpg: Lemon")).to_have_count(1)
