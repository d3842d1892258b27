"""The address says where a reader is and how it is shown: to another reader, and on the way back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.test_flows import to_view
from tests.browser.test_looks import READY

Open = Callable[..., Page]

# All that a view shows, also how its pictures are drawn, but for how long it took.
SHOWN = """() => {
  const drawn = (image) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL();
  };
  const view = document.getElementById("view");
  const all = (selector) => [...view.querySelectorAll(selector)];
  return {
    words: view.innerText.replace(/answered in .* ms/, ""),
    chosen: all("[aria-pressed=true], [aria-current=true], input:checked").map((element) => element.id),
    opened: all("details[open]").map((element) => element.id),
    set: all("input:not([type=radio], [type=checkbox]), select").map((element) => [element.id, element.value]),
    drawn: all("img:not([hidden])").map(drawn),
  };
}"""
# None of these is a value that the page knows, but for one; another says nothing.
WRONG = (
    "classes=most&style=oil&polarity=north&superpixels=7&aspect=smell&over=there&opacity=2&sharpness=&open=call+door"
    "&constructor=5"
)
TOLD = (
    "The link asks for classes=most, style=oil, polarity=north, superpixels=7, aspect=smell, over=there, opacity=2, "
    "open=door, constructor=5, which is unknown here. "
    "Shown instead: few, spotlight, for it, by itself, Maps, true, 0.7."
)
USUAL: dict[str, tuple[str, set[str], dict[str, str]]] = {
    "see": ("", set(), {}),
    "why": (
        "view=why",
        {"class-0", "polarity-positive", "style-overlay", "superpixels-auto"},
        {"top_superpixels": "5", "opacity": "0.7"},
    ),
    "inside": ("view=inside", {"layer-conv_1", "aspect-maps", "over"}, {"channel": "2"}),
    "softmax": ("view=inside&layer=~softmax", {"layer-~softmax"}, {"sharpness": "0"}),
    "compare": ("view=compare", {"method-gradcam"}, {"beside": "fruit_vgg16"}),
}


def shown(page: Page, view: str) -> dict[str, Any]:
    READY[view](page)
    return dict(page.evaluate(SHOWN))


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def pick(page: Page, name: str) -> None:
    page.get_by_label(name, exact=True).check(force=True)


def test_a_link_shows_another_reader_the_same(open_page: Open, served: str, lemon: str) -> None:
    page = open_page(f"{served}/?image_id={lemon}&model=fruit_cnn&view=why&label=Banana")
    other = open_page("about:blank")

    def same(view: str, *said: str) -> dict[str, Any]:
        READY[view](page)
        assert [part for part in said if part not in page.url] == []
        other.goto(page.url)
        seen = shown(other, view)
        # What was changed last may still be on its way to there.
        page.wait_for_function(
            f"(seen) => JSON.stringify(({SHOWN})()) === seen",
            arg=json.dumps(seen, ensure_ascii=False, separators=(",", ":")),
        )
        return seen

    page.get_by_label("Opacity").fill("0.35")
    for name in ("against it", "outline", "coarse"):
        pick(page, name)
    READY["why"](page)
    page.get_by_label("Regions shown").fill("9")
    for summary in ("The numbers", "What is Grad-CAM?", "The call behind this view"):
        page.get_by_text(summary).click()
    expect(page).to_have_url(re.compile("open=numbers\\+how-gradcam\\+call"))
    seen = same("why", "label=Banana", "top_superpixels=9", "opacity=0.35", "polarity=negative", "superpixels=20")
    assert seen["opened"] == ["numbers", "how-gradcam", "call"]
    assert set(seen["chosen"]) == {"class-1", "polarity-negative", "style-outline", "superpixels-20"}
    assert dict(seen["set"])["top_superpixels"] == "9"
    # Of what was opened, another view's link names what is there, too.
    views = page.get_by_role("navigation")
    expect(views.get_by_role("link", name="Models")).not_to_have_attribute("href", re.compile("open="))
    expect(views.get_by_role("link", name="See")).to_have_attribute("href", re.compile("open=call(&|$)"))

    to_view(page, "See")
    press(page, "Show more classes")
    other.goto(page.url)
    expect(other.locator(".bar")).to_have_count(10)

    to_view(page, "Inside")
    page.get_by_role("button", name="conv_2").click()
    press(page, "The next channel")
    page.get_by_label("over the picture").uncheck()
    maps = same("inside", "layer=conv_2", "channel=", "over=false")
    press(page, "Its filters")
    expect(page.get_by_role("img", name="The filters of the 16 channels")).to_be_visible()
    other.goto(page.url)
    filters = other.get_by_role("img", name="The filters of the 16 channels")
    expect(filters).to_be_visible()
    channel = dict(maps["set"])["channel"]
    expect(other.get_by_role("img", name=f"The filter of channel {channel} of conv_2")).to_be_visible()

    page.get_by_role("button", name="Softmax").click()
    page.get_by_label("Scores multiplied by").fill("-1.5")
    same("softmax", "layer=%7Esoftmax", "sharpness=-1.5")

    to_view(page, "Compare")
    page.locator("#model").select_option("fruit_vgg16/")
    expect(page.locator(".lead")).to_contain_text("fruit_vgg16/1 with")
    press(page, "Regions")
    expect(page).to_have_url(re.compile("model=fruit_vgg16.*beside=fruit_cnn.*method=lime"))
    other.goto(page.url)
    expect(other.locator(".side h2")).to_have_text(["fruit_vgg16/1", "fruit_cnn/1"])
    expect(other.locator("#method-lime")).to_have_attribute("aria-pressed", "true")
    # Nobody need wait for those regions.
    for each in (page, other):
        to_view(each, "Models")
        READY["models"](each)
    page.locator("#report-fruit_cnn-1 > summary").click()
    page.locator("#origin-fruit_vgg16-1 > summary").click()
    expect(page).to_have_url(re.compile("report-fruit_cnn-1\\+origin-fruit_vgg16-1"))
    other.goto(page.url)
    expect(other.locator("#report-fruit_cnn-1").get_by_role("img", name="confusion")).to_be_visible()
    assert shown(other, "models")["opened"] == ["report-fruit_cnn-1", "origin-fruit_vgg16-1"]


def test_what_an_address_says_wrongly_is_told_and_the_usual_shown(open_page: Open, served: str, lemon: str) -> None:
    page = open_page("about:blank")
    for view, (query, chosen, values) in USUAL.items():
        page.goto(f"{served}/?image_id={lemon}&{query}&{WRONG}")
        seen = shown(page, view)
        assert (view, set(seen["chosen"])) == (view, chosen)
        assert values.items() <= dict(seen["set"]).items()
        assert seen["opened"] == ["call"]
        expect(page.get_by_role("alert")).to_have_text(TOLD)
        assert "oil" not in page.url
    page.goto(f"{served}/?view=sideways&top_superpixels=many")
    READY["start"](page)
    expect(page.get_by_role("alert")).to_have_text(
        "The link asks for view=sideways, top_superpixels=many, which is unknown here. Shown instead: See, 5."
    )
    page.goto(
        f"{served}/?image_id={lemon}&view=inside&view=why&view=nowhere&open=call+numbers+report-fruit_cnn-1&open="
    )
    assert shown(page, "inside")["opened"] == ["call"]
    expect(page.get_by_role("alert")).to_have_text(
        "The link gives view, open more than once: the first counts. "
        "The link asks for open=numbers report-fruit_cnn-1, which is unknown here."
    )
    expect(page).to_have_url(f"{served}/?image_id={lemon}&view=inside&open=call")
    page.goto(f"{served}/?k={'x' * 500}")
    expect(page.get_by_role("alert")).to_have_text(re.compile("^The link asks for k=x{158}…, which is unknown here.$"))
    for name in ("gone", lemon.upper()):
        page.goto(f"{served}/?image_id={name}&model=fruit_cnn")
        READY["start"](page)
        expect(page.get_by_role("alert")).to_have_text(
            f"No picture is called {name}: expected 64 digits, 0 to 9 and a to f. "
            "Perhaps the link was cut off. Begin again with a picture."
        )
        expect(page.get_by_role("button", name="Try again")).to_have_count(0)
        assert page.url == f"{served}/?model=fruit_cnn"
    page.goto(f"{served}/?view=models&open=report-fruit_cnn-1+diagram-fruit_cnn-1+door")
    expect(page.get_by_role("alert")).to_have_text("The link asks for open=door, which is unknown here.")
    READY["models"](page)
    assert set(shown(page, "models")["opened"]) == {"report-fruit_cnn-1", "diagram-fruit_cnn-1"}
    expect(page).to_have_url(f"{served}/?view=models&open=report-fruit_cnn-1+diagram-fruit_cnn-1")
    german = open_page(f"{served}/?image_id={lemon}&view=inside&channel=99&opacity=2", locale="de-DE")
    READY["inside"](german)
    expect(german.get_by_role("alert")).to_have_text(
        "Der Link verlangt opacity=2, das ist hier unbekannt. Gezeigt wird stattdessen: 0.7. "
        "conv_1 hat die Kanäle 0 bis 31 und keinen namens 99: Gezeigt wird 2."
    )


def test_what_an_address_names_and_is_not_here_is_said_and_the_usual_shown(
    open_page: Open, served: str, lemon: str
) -> None:
    page = open_page("about:blank")
    for view, name, said in (
        ("see", "model=nobody", "There is no nobody here: fruit_cnn answers."),
        ("see", "version=99", "There is no fruit_cnn/99 here: fruit_cnn answers."),
        ("why", "view=why&label=car", "The model has no class car: this is about Lemon."),
        ("inside", "view=inside&layer=none", "This version has no layer none: conv_1 is shown."),
        (
            "inside",
            "view=inside&layer=conv_2&channel=999999",
            "conv_2 has channels 0 to 15 and none that is called 999999: 0 is shown.",
        ),
        ("inside", "view=inside&channel=-1", "conv_1 has channels 0 to 31 and none that is called -1: 2 is shown."),
        ("compare", "view=compare&beside=nobody", "There is no nobody here: fruit_vgg16 answers."),
        ("compare", "view=compare&method=valueOf", "There is no method valueOf here: Heat map is shown."),
        (
            "models",
            "view=models&open=report-fruit_cnn-9",
            "The link opens something of fruit_cnn/9, which does not answer here.",
        ),
    ):
        page.goto(f"{served}/?image_id={lemon}&{name}")
        READY[view](page)
        expect(page.get_by_role("alert")).to_have_text(said)
        assert name.rpartition("&")[2] not in page.url
    to_view(page, "See")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_back_and_forward_lead_through_what_was_chosen(open_page: Open, served: str, lemon: str) -> None:
    page = open_page(f"{served}/?image_id={lemon}&view=why")
    READY["why"](page)
    pick(page, "against it")
    pick(page, "outline")
    # It needs no step of its own.
    page.get_by_label("Opacity").fill("0.3")
    for summary in ("The numbers", "The call behind this view"):
        page.get_by_text(summary).click()
    expect(page).to_have_url(re.compile("open=numbers\\+call"))
    # What is open needs no other drawing.
    page.evaluate("() => document.getElementById('view-title').setAttribute('data-drawn', '')")
    for go, seen in ((page.go_back, ["numbers"]), (page.go_back, []), (page.go_forward, ["numbers"])):
        go()
        expect(page.locator("#view details[open]")).to_have_count(len(seen))
        assert shown(page, "why")["opened"] == seen
    expect(page.locator("[data-drawn]")).to_have_count(1)
    to_view(page, "Inside")
    READY["inside"](page)
    press(page, "Its filters")
    expect(page.get_by_role("img", name="The filters of")).to_be_visible()
    page.go_back()
    READY["inside"](page)
    page.go_back()
    READY["why"](page)
    assert {"polarity-negative", "style-outline"} < set(shown(page, "why")["chosen"])
    assert shown(page, "why")["opened"] == ["numbers"]
    page.go_back()
    expect(page.locator("#numbers")).not_to_have_attribute("open", "")
    expect(page.get_by_label("Opacity")).to_have_value("0.3")
    page.go_back()
    expect(page.locator("#style-overlay")).to_be_checked()
    expect(page.locator("#polarity-negative")).to_be_checked()
    page.go_back()
    expect(page.locator("#polarity-positive")).to_be_checked()
    for _ in range(3):
        page.go_forward()
    expect(page.locator("#style-outline")).to_be_checked()
    expect(page.locator("#numbers")).to_have_attribute("open", "")
    expect(page.locator("#polarity-negative")).to_be_checked()
    page.get_by_role("link", name="Sichtbar, start").click()
    READY["start"](page)
    assert "?" not in page.url
