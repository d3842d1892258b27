"""What a person does on the page, from a picture to what is taken along."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from service.settings import Settings
from tests.conftest import ROOT, draw, encode

LEMON = ROOT / "examples" / "lemon.png"
STRAWBERRY = ROOT / "examples" / "strawberry.png"
ID = re.compile(r"image_id=[0-9a-f]{64}")
Open = Callable[..., Page]
# What the browser itself says of an answer of 400 or more.
REFUSED = "Failed to load resource"

# A file as a reader's own program hands it over.
HANDED = """([content, kind, name]) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  const given = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(given);
}"""


def hand(page: Page, path: Path, kind: str) -> None:
    page.evaluate(HANDED, [base64.b64encode(path.read_bytes()).decode(), kind, path.name])


def choose(page: Page, *files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose pictures").click()
    chooser.value.set_files(files)


def to_view(page: Page, name: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=name).click()


def answered(page: Page, label: str) -> None:
    expect(page.locator(".verdict")).to_contain_text(label)
    expect(page).to_have_url(ID)


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_is_answered_in_bars(open_page: Open, served: str, way: str) -> None:
    page = open_page(served)
    if way == "choose":
        choose(page, LEMON)
    else:
        hand(page, LEMON, way)
    answered(page, "Lemon")
    truth = httpx.post(f"{served}/predict?model=fruit_cnn", files={"file": LEMON.read_bytes()}).json()["images"][0]
    assert page.locator(".bar-label").all_inner_texts() == [each["label"] for each in truth["predictions"]]
    expect(page.locator(".bar-share").first).to_have_text(f"{truth['predictions'][0]['probability']:.0%}")
    expect(page.locator(".recognised")).to_contain_text("looks like the pictures that the model learned from")
    page.get_by_role("button", name="Show more classes").click()
    expect(page.locator(".bar")).to_have_count(10)


def test_the_page_says_where_a_picture_that_is_dragged_over_it_will_go(open_page: Open, served: str) -> None:
    page = open_page(served)
    hand(page, LEMON, "dragenter")
    expect(page.get_by_text("Drop it")).to_be_visible()
    hand(page, LEMON, "dragleave")
    expect(page.get_by_text("Drop it")).to_be_hidden()


def test_a_photograph_is_answered(open_page: Open, served: str) -> None:
    page = open_page(served)
    page.get_by_role("button", name="Photograph").click()
    page.get_by_role("button", name="Take it").click()
    expect(page.locator(".bar")).to_have_count(5)
    expect(page.locator(".looked-at .name")).to_have_text("photograph.jpg")


def test_an_example_is_answered(open_page: Open, served: str) -> None:
    page = open_page(served)
    page.get_by_role("button", name="Example: a strawberry").click()
    answered(page, "Strawberry")
    page.go_back()
    expect(page.get_by_role("heading", name="See what a computer sees")).to_be_visible()
    page.go_forward()
    answered(page, "Strawberry")


def test_who_goes_back_before_an_answer_is_there_is_where_they_were(open_page: Open, served: str) -> None:
    page = open_page(served)
    start = page.url
    page.get_by_role("button", name="Example: a lemon").focus()
    entries = page.evaluate("() => history.length")
    held: list[Route] = []
    page.route("**/predict*", lambda route: held.append(route))
    with page.expect_request("**/predict*"):
        page.get_by_role("button", name="Example: a lemon").first.dblclick()
    expect(page.locator(".looked-at .name")).to_have_text("lemon.jpg")
    assert page.evaluate("() => history.length") == entries + 1
    page.go_back()
    expect(page.get_by_role("heading", name="See what a computer sees")).to_be_visible()
    expect(page.locator(".looked-at")).to_be_hidden()
    page.unroute("**/predict*")
    assert page.url == start
    page.go_forward()
    answered(page, "Lemon")
    page.go_back()
    expect(page.get_by_role("heading", name="See what a computer sees")).to_be_visible()
    assert page.url == start


def test_an_answer_that_is_slow_to_come_is_waited_for_with_a_word(open_page: Open, served: str) -> None:
    page = open_page(served)
    held: list[Route] = []
    page.route("**/predict*", lambda route: held.append(route))
    for picture, label, earlier in ((LEMON, "Lemon", "See what a computer sees"), (STRAWBERRY, "Strawberry", "Lemon")):
        choose(page, picture)
        expect(page.get_by_role("heading", name="Asking…")).to_be_visible()
        expect(page.locator("#said")).to_have_text("Asking…")
        expect(page.get_by_role("heading", name=earlier)).to_be_hidden()
        held.pop().continue_()
        answered(page, label)
    to_view(page, "Compare")
    choose(page, ROOT / "examples" / "banana.png")
    expect(page.locator("#said")).to_have_text("Asking…")
    # What was held goes on.
    page.unroute("**/predict*")
    expect(page.get_by_role("heading", name="Two answers to one picture")).to_be_visible()
    expect(page.locator("#said")).not_to_have_text("Asking…")


def test_who_leaves_while_an_answer_is_waited_for_is_told_of_it_no_more(open_page: Open, served: str) -> None:
    page = open_page(served)
    held: list[Route] = []
    page.route("**/predict*", lambda route: held.append(route))
    for leave, there in (
        (lambda: page.go_back(), "See what a computer sees"),
        (lambda: to_view(page, "Models"), "Models"),
    ):
        choose(page, LEMON)
        expect(page.locator("#said")).to_have_text("Asking…")
        leave()
        expect(page.get_by_role("heading", name=there, exact=True)).to_be_visible()
        expect(page.locator("#said")).not_to_have_text("Asking…")


def test_a_link_that_is_slow_to_open_is_waited_for_with_a_word(open_page: Open, served: str) -> None:
    page = open_page(served)
    choose(page, LEMON)
    expect(page).to_have_url(ID)
    link = page.url
    held: list[Route] = []
    for slow in ("**/models", "**/images/*"):
        page.goto("about:blank")
        page.route(slow, lambda route: held.append(route))
        page.goto(link, wait_until="commit")
        expect(page.get_by_role("heading", name="Asking…")).to_be_visible()
        # What was held goes on.
        page.unroute(slow)
        answered(page, "Lemon")


def test_of_several_pictures_the_first_is_shown_and_the_others_are_at_hand(open_page: Open, served: str) -> None:
    page = open_page(served, expected=REFUSED)
    choose(page, LEMON, STRAWBERRY, ROOT / "README.md")
    answered(page, "Lemon")
    visit = page.locator(".others .thumbs").first.get_by_role("button")
    expect(visit).to_have_count(3)
    expect(visit.nth(2)).to_have_accessible_name("README.md: No answer")
    page.get_by_role("button", name="strawberry.png: Strawberry").click()
    answered(page, "Strawberry")
    page.go_back()
    answered(page, "Lemon")
    page.reload()
    answered(page, "Lemon")
    # Also a second time: what came back is remembered, too.
    for _ in range(2):
        expect(page.get_by_role("button", name=re.compile(r"^strawberry\.png"))).to_be_visible()
        page.reload()
    answered(page, "Lemon")


def test_a_picture_of_nothing_that_it_knows_is_said_to_be_unknown(open_page: Open, served: str, tmp_path: Path) -> None:
    (tmp_path / "stripes.png").write_bytes(encode(draw("stripes", 1, (200, 200))))
    page = open_page(f"{served}/?model=fruit_vgg16")
    choose(page, tmp_path / "stripes.png")
    expect(page.locator(".recognised")).to_contain_text("Not recognised")


def test_another_model_answers_when_it_is_chosen(open_page: Open, served: str) -> None:
    page = open_page(served)
    choose(page, LEMON)
    answered(page, "Lemon")
    page.get_by_label("Model").select_option("fruit_vgg16/")
    expect(page.locator(".view")).to_contain_text("fruit_vgg16/1 answered")
    expect(page).to_have_url(re.compile("model=fruit_vgg16"))


def test_why_is_drawn_and_its_trust_told_in_words(open_page: Open, served: str) -> None:
    page = open_page(served)
    choose(page, LEMON)
    answered(page, "Lemon")
    to_view(page, "Why")
    regions = page.get_by_role("img", name="The picture with the regions")
    expect(regions).to_be_visible()
    expect(page.get_by_role("img", name="The picture with a heat map")).to_be_visible()
    asked = httpx.get(f"{served}/explain?{ID.search(page.url)[0]}&model=fruit_cnn&label=Lemon&format=json").json()
    expect(page.locator("[data-measure=r2]")).to_contain_text(f"explain {asked['r2']:.0%}")
    expect(page.locator("[data-measure=stability]")).to_contain_text(f"{asked['stability']:.2f}")
    # Painted over, this lemon stays one: the page says that its regions do not matter, and how far to trust them.
    expect(page.locator("[data-measure=deletion]")).to_contain_text("the colours alone are enough")
    expect(page.locator("#trust .lead")).to_contain_text("Little")

    for change in (
        lambda: page.get_by_label("Regions shown").fill("12"),
        lambda: page.get_by_label("Opacity").fill("0.3"),
        lambda: page.get_by_label("against it").check(force=True),
        lambda: page.get_by_label("outline").check(force=True),
    ):
        before = regions.get_attribute("src")
        assert before
        change()
        expect(regions).not_to_have_attribute("src", before)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download regions").click()
    assert download.value.suggested_filename == "lemon-Lemon-lime.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("locale", "most", "said"),
    [
        pytest.param("en-GB", 0.4, "the probability falls from 97% to 40%;", id="falls"),
        pytest.param("en-GB", 0.971, "the probability stays at 97%;", id="stays"),
        pytest.param("en-GB", 0.98, "the probability rises from 97% to 98%;", id="rises"),
        pytest.param(
            "de-DE",
            0.4,
            "fällt die Wahrscheinlichkeit von 97\N{NO-BREAK SPACE}% auf 40\N{NO-BREAK SPACE}%;",
            id="fällt",
        ),
        pytest.param("de-DE", 0.971, "bleibt die Wahrscheinlichkeit 97\N{NO-BREAK SPACE}%;", id="bleibt"),
        pytest.param(
            "de-DE",
            0.98,
            "steigt die Wahrscheinlichkeit von 97\N{NO-BREAK SPACE}% auf 98\N{NO-BREAK SPACE}%;",
            id="steigt",
        ),
    ],
)
def test_what_is_said_of_the_order_of_regions_is_what_its_numbers_say(
    open_page: Open, served: str, locale: str, most: float, said: str
) -> None:
    page = open_page(served, locale=locale)
    expect(page.locator(".welcome")).to_be_visible()
    curves = {"score": 0.4, "removed": [0, 4, 8], "most_first": [0.97, most, 0.1], "least_first": [0.97, 0.97, 0.1]}
    words = page.evaluate(
        """async (deletion) => {
          const { judged } = await import("/web/trust.js");
          return judged({ r2: 0.9, stability: 0.9, deletion }).deletion.words;
        }""",
        curves,
    )
    assert said in words


def test_another_class_is_asked_about(open_page: Open, served: str) -> None:
    page = open_page(served)
    choose(page, LEMON)
    answered(page, "Lemon")
    page.locator(".bar-row", has_text="Banana").click()
    expect(page.locator("#view-title")).to_have_text("Why Banana?")
    expect(page).to_have_url(re.compile("view=why&label=Banana"))
    page.get_by_label("Another class").fill("kiwi")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("img", name="count for kiwi")).to_be_visible()
    page.go_back()
    expect(page.locator("#view-title")).to_have_text("Why Banana?")
    page.get_by_label("Another class").fill("car")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("The model has no class car: this is about Lemon.")
    expect(page.locator("#view-title")).to_have_text("Why Lemon?")


def test_an_explanation_shows_how_far_it_is(open_page: Open, served: str) -> None:
    page = open_page(f"{served}/?model=fruit_vgg16")
    choose(page, STRAWBERRY)
    expect(page.locator(".bar")).to_have_count(5)
    to_view(page, "Why")
    expect(page.locator("[data-method=lime] progress[value]")).to_be_visible()
    expect(page.locator("[data-method=lime]")).to_contain_text(re.compile(r"\d+ altered pictures asked about"))
    # Another view, and nobody waits for it any more.
    with page.expect_request(lambda request: request.method == "DELETE") as cancelled:
        to_view(page, "Models")
    job = cancelled.value.url
    assert cancelled.value.response().ok
    assert httpx.get(job).json()["state"] == "cancelled"


def test_inside_leads_from_the_picture_through_maps_and_filters_to_softmax(open_page: Open, served: str) -> None:
    page = open_page(served)
    choose(page, LEMON)
    answered(page, "Lemon")
    to_view(page, "Inside")
    layers = page.get_by_role("region", name="Layers").get_by_role("button")
    expect(layers).to_have_count(12)
    layers.nth(4).click()
    expect(page.locator("#detail-title")).to_have_text("conv_2")
    maps = page.get_by_role("img", name="The 16 channels of conv_2")
    box = maps.bounding_box()
    assert box
    # The second of the first line of four.
    maps.click(position={"x": box["width"] * 0.375, "y": box["height"] * 0.125})
    expect(page.get_by_role("img", name="Where channel 1 of conv_2 is strong")).to_be_visible()
    expect(page).to_have_url(re.compile("layer=conv_2&channel=1"))
    page.get_by_role("button", name="The next channel").click()
    large = page.get_by_role("img", name="Where channel 2 of conv_2 is strong")
    expect(large).to_be_visible()
    over = large.get_attribute("src")
    assert over
    page.get_by_label("over the picture").uncheck()
    expect(large).not_to_have_attribute("src", over)
    expect(page.get_by_role("img", name="The filter of channel 2 of conv_2")).to_be_visible()
    page.get_by_role("button", name="Its filters").click()
    expect(page.get_by_role("img", name="The filters of the 16 channels")).to_be_visible()
    layers.first.click()
    expect(page.get_by_role("img", name="The picture as fruit_cnn sees it")).to_be_visible()
    layers.last.click()
    shares = page.locator(".softmax tbody td:last-child .figure")
    expect(shares.first).to_have_text("99%")
    page.get_by_label("Scores multiplied by").fill("-2")
    expect(shares.first).not_to_have_text("99%")
    page.go_back()
    expect(page.get_by_role("img", name="The picture as fruit_cnn sees it")).to_be_visible()


def test_softmax_of_a_calibrated_version_ends_at_what_it_answers(open_page: Open, served: str) -> None:
    page = open_page(f"{served}/?model=fruit_vgg16")
    choose(page, LEMON)
    answered(page, "Lemon")
    share = page.locator(".bar-share").first.inner_text()
    to_view(page, "Inside")
    page.get_by_role("button", name="Softmax").click()
    expect(page.locator(".softmax tbody td:last-child .figure").first).to_have_text(share)
    expect(page.locator("#detail")).to_contain_text("first divides its scores by 0.555")


def test_two_models_are_compared(open_page: Open, served: str) -> None:
    page = open_page(served)
    choose(page, LEMON)
    answered(page, "Lemon")
    to_view(page, "Compare")
    expect(page.locator(".lead")).to_contain_text("Both say Lemon: fruit_cnn/1 with 99%, fruit_vgg16/1 with 69%")
    expect(page.get_by_role("img", name="The picture with a heat map")).to_have_count(2)
    for model in ("fruit_cnn", "fruit_vgg16"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {model}/1").click()
        assert download.value.suggested_filename == f"lemon-Lemon-{model}-1-gradcam.png"
        look = "method=gradcam&style=heatmap&opacity=0.7&size=512"
        truth = httpx.get(f"{served}/explain?{ID.search(page.url)[0]}&model={model}&version=1&label=Lemon&{look}")
        assert Path(download.value.path()).read_bytes() == truth.content


def test_the_call_behind_a_view_can_be_copied_and_run(open_page: Open, served: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    page = open_page(served, permissions=["clipboard-read", "clipboard-write"])
    awkward = tmp_path / 'a "lemon"; it\'s, one.png'
    shutil.copy(LEMON, awkward)
    choose(page, awkward)
    answered(page, "Lemon")

    def run() -> bytes:
        page.get_by_role("button", name="Copy curl command").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        command = page.evaluate("() => navigator.clipboard.readText()")
        return subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True).stdout

    assert b'"label":"Lemon"' in run()
    to_view(page, "Why")
    expect(page.get_by_role("button", name="Download regions")).to_be_visible()
    run()
    for method in ("lime", "gradcam"):
        assert (tmp_path / f"why-{method}.png").read_bytes().startswith(b"\x89PNG")
    to_view(page, "Inside")
    page.get_by_role("button", name="conv_2").click()
    page.get_by_label("Channel", exact=True).fill("2.4")
    page.keyboard.press("Enter")
    expect(page.get_by_role("img", name="Where channel 2 of conv_2 is strong")).to_be_visible()
    run()
    params = {"model": "fruit_cnn", "version": 1, "layer": "conv_2", "channel": 2, "over": True}
    params["image_id"] = ID.search(page.url)[0].partition("=")[2]
    assert (tmp_path / "maps.png").read_bytes() == httpx.get(f"{served}/activations", params=params).content


def test_models_have_cards_and_reports(open_page: Open, served: str) -> None:
    page = open_page(f"{served}/?view=models")
    card = page.get_by_role("region", name="fruit_vgg16")
    expect(card).to_contain_text("it has seen no photograph")
    card.get_by_text("What training measured").click()
    expect(card.get_by_role("img", name="confusion")).to_be_visible()
    card.get_by_text("The network as a diagram").click()
    expect(card.get_by_role("img", name="Every layer of fruit_vgg16")).to_be_visible()
    card.get_by_role("button", name="Use this one").click()
    expect(page).to_have_url(re.compile("model=fruit_vgg16&version=1"))


def test_versions_that_do_not_answer_say_why(
    open_page: Open, serve: Callable[[Settings], str], own_models: Path
) -> None:
    (own_models / "shapes" / "2").mkdir()
    page = open_page(f"{serve(Settings(models=own_models, engine='openvino'))}/?view=models")
    expect(page.locator(".version", has_text="Version 2")).to_contain_text("no manifest.json")


def test_everything_can_be_done_by_keyboard(open_page: Open, served: str) -> None:
    page = open_page(served)
    # Until the page is drawn, Tab leads on to its foot.
    choosing = page.get_by_role("button", name="Choose pictures")
    expect(choosing).to_be_visible()
    page.evaluate("() => document.getElementById('view-title').setAttribute('data-drawn', '')")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(choosing).to_be_focused()
    # Who skips the head need not wait for another drawing, nor lose what is focused to it.
    expect(page.locator("[data-drawn]")).to_have_count(1)
    photograph = page.get_by_role("button", name="Photograph")
    photograph.press("Enter")
    expect(page.get_by_role("dialog", name="Photograph")).to_be_visible()
    page.keyboard.press("Escape")
    expect(photograph).to_be_focused()
    page.get_by_role("button", name="Example: a lemon").press("Enter")
    answered(page, "Lemon")
    expect(page.locator("#view-title")).to_be_focused()
    page.get_by_role("navigation").get_by_role("link", name="Why").press("Enter")
    expect(page.locator("#view-title")).to_be_focused()
    layers = page.get_by_role("region", name="Layers").get_by_role("button")
    page.get_by_role("navigation").get_by_role("link", name="Inside").press("Enter")
    layers.nth(4).press("Enter")
    expect(page.locator("#detail-title")).to_have_text("conv_2")
    expect(layers.nth(4)).to_be_focused()
    page.go_back()
    page.go_back()
    regions = page.get_by_role("img", name="The picture with the regions")
    expect(regions).to_be_visible()
    expect(page.locator("#trust")).to_be_visible()
    before = regions.get_attribute("src")
    assert before
    page.get_by_label("Regions shown").press("ArrowRight")
    expect(page.locator("output[for=top_superpixels]")).to_have_text("6")
    expect(regions).not_to_have_attribute("src", before)
    # Each Tab leads on, to the last link of the page.
    last, on = page.get_by_role("link", name="Every call"), "(element) => element === document.activeElement"
    for _ in range(40):
        page.keyboard.press("Tab")
        if last.evaluate(on):
            break
    expect(last).to_be_focused()


def test_the_page_speaks_german_to_who_wishes_it(open_page: Open, served: str) -> None:
    page = open_page(served, locale="de-DE")
    expect(page.locator("html")).to_have_attribute("lang", "de")
    page.get_by_role("button", name="Beispiel: eine Zitrone").click()
    answered(page, "Lemon, 99 %")
    page.get_by_role("button", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator(".recognised")).to_contain_text("It looks like")
    page.reload()
    expect(page.locator(".recognised")).to_contain_text("It looks like")


def test_the_theme_that_is_chosen_stays(open_page: Open, served: str) -> None:
    page = open_page(served, color_scheme="light")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Light or dark").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
