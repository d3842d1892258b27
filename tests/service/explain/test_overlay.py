from __future__ import annotations

import io
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.explain.model import Model
from service.explain.overlay import AGAINST, FOR, SMALLEST_SIDE, draw
from service.explain.question import Box, HeatExplanation, LimeExplanation, Superpixel, runs
from service.explain.style import Style, StyleName
from tests.conftest import encode

WHOLE = Box(left=0, top=0, right=1, bottom=1)
# Left, middle and right: for, against, and nearly nothing.
WEIGHTS = (0.4, -0.3, 0.01)


def picture(size: tuple[int, int] = (600, 400)) -> bytes:
    """Every pixel in some colour, none of them grey."""
    return encode(Image.new("RGB", size, (200, 60, 120)))


def lime(box: Box = WHOLE) -> LimeExplanation:
    segments = np.repeat([0, 1, 2], 20)[None, :].repeat(40, axis=0)
    return LimeExplanation(
        class_index=0,
        probability=0.9,
        box=box,
        width=60,
        height=40,
        superpixels=[
            Superpixel(weight=weight, pixels=800, runs=runs(segments == index)) for index, weight in enumerate(WEIGHTS)
        ],
        intercept=0.1,
        r2=0.9,
        samples=128,
        settled=True,
        stability=0.99,
        error=0.01,
        seed=1,
        fill="mean",
        deletion=None,
    )


def gradcam() -> HeatExplanation:
    heat = np.zeros((4, 6))
    heat[1, 1] = 1
    return HeatExplanation(class_index=0, probability=0.9, box=WHOLE, layer="conv", heatmap=heat.tolist())


def drawn(
    explanation: LimeExplanation | HeatExplanation, data: bytes | None = None, **style: object
) -> NDArray[np.int64]:
    data = data or picture()
    png = draw(cast(Model, None), lambda progress: None, data, explanation, Style(**style), 10**7)  # type: ignore[arg-type]
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def colourfulness(pixels: NDArray[np.int64]) -> float:
    return float((pixels.max(axis=-1) - pixels.min(axis=-1)).mean())


def has(pixels: NDArray[np.int64], colour: tuple[int, int, int]) -> bool:
    return bool((pixels == colour).all(axis=-1).any())


def test_what_speaks_for_the_class_stays_in_colour_and_the_rest_turns_grey() -> None:
    pixels = drawn(lime(), top_superpixels=1, opacity=1.0)
    left, middle, right = pixels[100:300, 60:140], pixels[100:300, 260:340], pixels[100:300, 460:540]
    assert colourfulness(left) > 80
    assert colourfulness(middle) == colourfulness(right) == 0
    assert has(pixels, FOR)
    assert not has(pixels, AGAINST)


def test_polarity_and_number_choose_superpixels() -> None:
    negative = drawn(lime(), style="outline", polarity="negative")
    both = drawn(lime(), style="outline", polarity="both")
    assert has(negative, AGAINST)
    assert not has(negative, FOR)
    assert has(both, FOR)
    assert has(both, AGAINST)
    one = drawn(lime(), style="outline", top_superpixels=1)
    two = drawn(lime(), style="outline", top_superpixels=2)
    assert (one != two).any()
    assert not (one[:, 450:] == FOR).all(axis=-1).any()


def test_a_heat_map_is_blue_for_and_orange_against() -> None:
    pixels = drawn(lime(), style="heatmap", polarity="both", top_superpixels=None, opacity=1.0)
    for_, against, neither = pixels[200, 100], pixels[200, 300], pixels[200, 500]
    assert for_.tolist() == list(FOR)
    assert against[0] > against[2] + 50
    assert neither.min() > 220


@pytest.mark.parametrize("style", ["overlay", "heatmap"])
def test_opacity_nought_is_the_picture_but_for_lines_and_colour(style: StyleName) -> None:
    pixels = drawn(lime(), style=style, opacity=0.0)
    inside = pixels[100:300, 60:140]
    assert np.ptp(inside.reshape(-1, 3), axis=0).max() == 0
    assert inside[0, 0].tolist() == [200, 60, 120] if style == "overlay" else colourfulness(inside) == 0


def test_gradcam_is_in_colour_where_it_is_hot() -> None:
    pixels = drawn(gradcam(), opacity=1.0)
    assert colourfulness(pixels[130:170, 130:170]) > colourfulness(pixels[300:, 400:]) + 50
    assert has(pixels, FOR)


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((600, 400), 1024, (600, 400)),
        ((3000, 1000), 512, (512, 171)),
        ((30, 60), 1024, (192, SMALLEST_SIDE)),
        ((1, 1), 64, (64, 64)),
        ((3000, 20), 1024, (1024, 64)),
        ((1, 30_000), 320, (20, 320)),
    ],
)
def test_it_has_the_pictures_aspect_but_for_a_line_and_the_size_asked_for(
    size: tuple[int, int], limit: int, expected: tuple[int, int]
) -> None:
    pixels = drawn(lime(), picture(size), size=limit)
    assert pixels.shape[1::-1] == expected


def test_what_the_model_did_not_see_is_dark_and_grey() -> None:
    box = Box(left=1 / 6, top=0, right=5 / 6, bottom=1)
    pixels = drawn(lime(box), opacity=0.5)
    assert colourfulness(pixels[:, :90]) == 0
    assert pixels[:, :90].mean() < pixels[:, 110:200].mean()


def test_a_box_beyond_the_picture_is_cut_to_it() -> None:
    box = Box(left=0, top=-0.25, right=1, bottom=1.25)
    heat = np.zeros((6, 6))
    heat[3, :] = 1
    explained = HeatExplanation(class_index=0, probability=0.9, box=box, layer="conv", heatmap=heat.tolist())
    pixels = drawn(explained, style="heatmap", opacity=1.0)
    # The fourth of six rows over one and a half heights: its middle is at 0.625 of the picture.
    assert int(pixels[:, 300].sum(axis=-1).argmax()) == pytest.approx(0.625 * 400, abs=15)


def test_the_same_arguments_give_the_same_bytes() -> None:
    args = (cast(Model, None), lambda progress: None, picture(), lime(), Style(), 10**7)
    assert draw(*args) == draw(*args)
