"""What the page does where something is missing, and what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from service.security import add_key
from service.settings import Settings
from tests.browser.test_flows import ID, LEMON, REFUSED, STRAWBERRY, answered, choose, to_view
from tests.conftest import draw, encode

Open = Callable[..., Page]
Serve = Callable[[Settings], str]


@pytest.fixture
def circle(tmp_path: Path) -> Path:
    path = tmp_path / "circle.png"
    path.write_bytes(encode(draw("circle", 1)))
    return path


@pytest.mark.parametrize(
    ("content", "what", "advice"),
    [
        pytest.param(b"", "The file is empty", "Choose another", id="empty"),
        pytest.param(b"words", "no picture that the service can read", "Send a JPEG", id="no picture"),
        pytest.param(LEMON.read_bytes()[:2000], "damaged or cut off", "save it anew", id="broken"),
    ],
)
def test_a_bad_file_is_refused_in_words_with_what_to_do(
    open_page: Open, served: str, tmp_path: Path, content: bytes, what: str, advice: str
) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    page = open_page(served, expected=REFUSED)
    choose(page, tmp_path / "bad.png")
    expect(page.get_by_role("alert")).to_contain_text(what)
    expect(page.get_by_role("alert")).to_contain_text(advice)
    choose(page, LEMON)
    answered(page, "Lemon")


def test_a_link_to_a_picture_that_expired_asks_for_it_again(open_page: Open, served: str) -> None:
    page = open_page(f"{served}/?image_id={'0' * 64}&view=why", expected=REFUSED)
    expect(page.get_by_role("alert")).to_contain_text("not kept any more")
    choose(page, LEMON)
    expect(page.get_by_role("img", name="The picture with the regions")).to_be_visible()


def test_a_picture_that_expired_while_it_is_looked_at_is_sent_again(
    open_page: Open, served: str, store: Path, circle: Path
) -> None:
    page = open_page(served, expected=REFUSED)
    choose(page, circle)
    expect(page).to_have_url(ID)
    kept = list(store.rglob(f"{ID.search(page.url)[0].removeprefix('image_id=')}*"))
    assert kept
    for path in kept:
        path.unlink()
    to_view(page, "Inside")
    expect(page.get_by_role("img", name="channels of conv_1")).to_be_visible()


def test_a_service_that_is_gone_is_told_from_a_bad_picture_and_hides_no_answer(open_page: Open, served: str) -> None:
    page = open_page(served, expected=REFUSED)
    page.route("**/predict*", lambda route: route.abort())
    choose(page, LEMON, STRAWBERRY)
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    expect(page.get_by_role("button", name="lemon.png: No answer")).to_be_visible()
    page.unroute("**/predict*")
    page.get_by_role("button", name="Try again").press("Enter")
    answered(page, "Lemon")
    # The button is gone, and who pressed it is not lost.
    expect(page.locator("#view-title")).to_be_focused()
    page.route("**/web/methods.json", lambda route: route.abort())
    to_view(page, "Compare")
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    # It explains nothing.
    to_view(page, "Inside")
    expect(page.get_by_role("img", name="channels of conv_1")).to_be_visible()
    to_view(page, "Why")
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    expect(page.locator(".looked-at .headline")).to_have_text("Lemon 99%")
    expect(page.get_by_role("button", name="lemon.png: Lemon")).to_be_visible()
    page.unroute("**/web/methods.json")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#view-title")).to_have_text("Why Lemon?")


def test_a_stream_of_progress_that_ends_early_or_breaks_is_followed_again(open_page: Open, served: str) -> None:
    page = open_page(f"{served}/?model=fruit_vgg16", expected=REFUSED)
    choose(page, LEMON)
    answered(page, "Lemon")
    streams: list[str] = []

    def cut(route: Route) -> None:
        streams.append(route.request.url)
        if len(streams) == 1:
            route.fulfill(content_type="text/event-stream", body=": still there\n\n")
        elif len(streams) == 2:
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/events", cut)
    to_view(page, "Why")
    expect(page.get_by_role("img", name="The picture with the regions")).to_be_visible()
    expect(page.locator("#trust")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    assert len(streams) > 2


def test_inside_that_is_drawn_again_meanwhile_is_drawn(open_page: Open, served: str) -> None:
    page = open_page(served)
    choose(page, LEMON)
    answered(page, "Lemon")
    held: list[Route] = []
    page.route("**/walk*", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/walk*"):
        to_view(page, "Inside")
    page.get_by_role("button", name="Deutsch").click()
    expect(page.locator("#detail-title")).to_have_text("conv_1")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_drawing_that_cannot_be_fetched_is_told(open_page: Open, served: str) -> None:
    page = open_page(served, expected=REFUSED)
    page.route("**/web/examples/lemon.jpg", lambda route: route.abort())
    page.get_by_role("button", name="Example: a lemon").click()
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    choose(page, LEMON)
    answered(page, "Lemon")
    to_view(page, "Why")
    download = page.get_by_role("button", name="Download regions")
    expect(download).to_be_visible()
    page.route("**/result?*format=png*", lambda route: route.abort())
    download.click()
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")


def test_where_no_picture_is_kept_each_question_sends_it(
    open_page: Open, serve: Serve, shapes_models: Path, circle: Path
) -> None:
    page = open_page(serve(Settings(models=shapes_models, engine="openvino", store="none")))
    choose(page, circle)
    expect(page.locator(".bar")).to_have_count(3)
    expect(page.locator(".along")).to_contain_text("no link to share")
    assert "image_id" not in page.url
    page.get_by_role("link", name="Skip to the content").press("Enter")
    expect(page).to_have_url(re.compile("#main$"))
    to_view(page, "Why")
    expect(page.get_by_role("img", name="The picture with the regions")).to_be_visible()
    expect(page.get_by_role("img", name="The picture with a heat map")).to_be_visible()
    to_view(page, "Inside")
    expect(page.get_by_role("img", name="channels of conv_1")).to_be_visible()
    page.get_by_role("button", name="Softmax").click()
    expect(page.locator("#detail")).to_contain_text("this one keeps none")
    to_view(page, "Compare")
    expect(page.locator(".view")).to_contain_text("nothing to compare it with")


@pytest.mark.parametrize("astray", ["**/events", "**/result?*format=png*"])
def test_an_explanation_whose_job_another_process_has_is_asked_for_without_one(
    open_page: Open, serve: Serve, shapes_models: Path, circle: Path, astray: str
) -> None:
    settings = Settings(models=shapes_models, engine="openvino", store="none")
    url, other = serve(settings), serve(settings)
    page = open_page(url, expected=REFUSED)
    page.route(astray, lambda route: route.continue_(url=route.request.url.replace(url, other, 1)))
    choose(page, circle)
    with page.expect_response(lambda response: response.status == 404) as lost:
        to_view(page, "Why")
    assert lost.value.json()["code"] == "unknown_explanation"
    regions = page.get_by_role("img", name="The picture with the regions")
    expect(regions).to_be_visible()
    expect(page.get_by_role("img", name="The picture with a heat map")).to_be_visible()
    expect(page.locator("#trust")).to_be_visible()
    before = regions.get_attribute("src")
    assert before
    page.get_by_label("outline").check(force=True)
    expect(regions).not_to_have_attribute("src", before)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_key_is_asked_for_and_shown_with_every_call(
    open_page: Open, serve: Serve, shapes_models: Path, tmp_path: Path, circle: Path
) -> None:
    keys = tmp_path / "keys.json"
    key = add_key(keys, "reader", frozenset({"predict", "explain"}), None)
    poor = add_key(keys, "poor", frozenset({"predict"}), None)
    url = serve(Settings(models=shapes_models, engine="openvino", keys=keys))
    page = open_page(url, expected=REFUSED)
    dialog = page.get_by_role("dialog", name="This service asks for a key")
    dialog.get_by_label("Key").fill("guessed")
    dialog.get_by_role("button", name="Use it").click()
    expect(dialog).to_contain_text("does not know the key")
    # No header can carry this one.
    dialog.get_by_label("Key").fill(f"{key}…")
    dialog.get_by_role("button", name="Use it").click()
    expect(dialog.get_by_label("Key")).to_have_value("")
    expect(dialog).to_contain_text("does not know the key")
    assert page.evaluate("() => sessionStorage.getItem('sichtbar-key')") == "guessed"
    page.reload()
    expect(dialog).to_contain_text("does not know the key")
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_label("Key").press("Enter")
    choose(page, circle)
    expect(page.locator(".bar")).to_have_count(3)
    expect(page.locator("#call")).to_contain_text("Bearer $SICHTBAR_API_KEY")
    page.reload()
    expect(page.locator(".bar")).to_have_count(3)
    to_view(page, "Why")
    expect(page.get_by_role("img", name="The picture with the regions")).to_be_visible()
    to_view(page, "Inside")
    expect(page.get_by_role("img", name="channels of conv_1")).to_be_visible()
    to_view(page, "Models")
    page.get_by_text("The network as a diagram").click()
    expect(page.get_by_role("img", name="Every layer of shapes")).to_be_visible()

    other = open_page(url, expected=REFUSED)
    dialog = other.get_by_role("dialog", name="This service asks for a key")
    dialog.get_by_role("button", name="Cancel").click()
    expect(other.get_by_role("alert")).to_contain_text("Without a key")
    other.get_by_role("button", name="Try again").click()
    dialog.get_by_label("Key").fill(poor)
    dialog.get_by_role("button", name="Use it").click()
    choose(other, circle)
    to_view(other, "Why")
    expect(other.get_by_role("alert").first).to_contain_text("Your key does not allow this")
    # Another key may allow all that this one did not.
    other.get_by_role("button", name="Use another key").first.click()
    dialog.get_by_role("button", name="Cancel").click()
    expect(other.get_by_role("alert").first).to_contain_text("Your key does not allow this")
    other.get_by_role("button", name="Use another key").first.click()
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_role("button", name="Use it").click()
    expect(other.get_by_role("img", name="The picture with the regions")).to_be_visible()
    expect(other.get_by_role("img", name="The picture with a heat map")).to_be_visible()
    expect(other.get_by_role("alert")).to_have_count(0)


def test_the_page_works_below_another_path(open_page: Open, served: str) -> None:
    below = f"{served}/sichtbar/"

    def strip(route: Route) -> None:
        route.continue_(url=route.request.url.replace("/sichtbar/", "/", 1))

    page = open_page("about:blank")
    page.route(f"{below}**", strip)
    strays: list[str] = []
    page.on("request", lambda request: None if request.url.startswith((below, "blob:")) else strays.append(request.url))
    page.goto(below)
    page.get_by_role("button", name="Example: a lemon").click()
    answered(page, "Lemon")
    assert page.url.startswith(f"{below}?")
    to_view(page, "Why")
    expect(page.get_by_role("img", name="The picture with the regions")).to_be_visible()
    to_view(page, "Inside")
    expect(page.get_by_role("img", name="channels of conv_1")).to_be_visible()
    assert not strays
