"""A layer and a picture in, what the layer sees of it out: as numbers, and as pictures. Its kernels too.

Functions of a model and a reporter are for `Explainer.run`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import NamedTuple, SupportsFloat

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service import render
from service.channels import ChannelStatistics, GridPlace
from service.decode import decode, fit, placement
from service.engines.base import Outputs
from service.errors import InvalidRequest, UnknownLayer
from service.explain.model import Model
from service.explain.question import Report
from service.manifest import Input, Layer, Manifest

INPUT = "input"
"""Stands for the picture as the model sees it, where a layer is asked for."""

# By Keras' class name: the weight that can be shown.
KERNELS = {
    "Conv2D": "kernel",
    "Conv2DTranspose": "kernel",
    "DepthwiseConv2D": "kernel",
    "SeparableConv2D": "depthwise_kernel",
}
NEAR, FEW = 5, 8
DIGITS = 6
LARGE_SIDE, PICTURE_SIDE = 512, 1024
# How much a picture fades where the map over it is lowest.
OPACITY = 0.8

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class LayerSummary:
    """All that a layer gives for a picture, in a few numbers."""

    mean: float
    max: float
    min: float
    sparsity: float
    dead_channels: int


class Walked(NamedTuple):
    """What a picture becomes on its way to the answer."""

    answer: Outputs
    """Of one picture: [C], [C], a number."""
    layers: list[LayerSummary]
    """In the manifest's order."""


def input_layer(target: Input) -> Layer:
    """The picture as the model sees it, as if it were a layer's output."""
    return Layer(name=INPUT, type="Input", shape=[target.height, target.width, 3], parameters=0, inputs=[])


def sources(layers: Sequence[Layer]) -> dict[str, list[str]]:
    """The names of the layers that each takes, by its own; none where it takes the picture."""
    before: list[str] = []
    found = {}
    for layer in layers:
        found[layer.name] = before if layer.inputs is None else layer.inputs
        before = [layer.name]
    return found


def find_layer(manifest: Manifest, name: str) -> Layer:
    """A layer by its name, or `input`.

    Raises:
        UnknownLayer: there is none of that name; says which are like it.
    """
    named = {layer.name: layer for layer in manifest.layers if layer.name != INPUT}
    layers = {INPUT: input_layer(manifest.input), **named}
    if name not in layers:
        raise UnknownLayer(f"expected {_some(name, list(layers))} of {_version(manifest)}, got {name!r}")
    return layers[name]


def find_filtered(manifest: Manifest, name: str) -> Layer:
    """A layer whose kernels can be shown.

    Raises:
        UnknownLayer: there is none of that name, or it has no kernel; says which have one.
    """
    layers = {layer.name: layer for layer in manifest.layers}
    filtered = [layer.name for layer in manifest.layers if has_filters(layer)]
    if name in layers and has_filters(layers[name]):
        return layers[name]
    got = f"{name!r}, a {layers[name].type} without a convolution's kernel" if name in layers else repr(name)
    expected = f"expected {_some(name, filtered)}" if filtered else "no layer has a kernel in two dimensions, none"
    raise UnknownLayer(f"{expected} of {_version(manifest)}, got {got}")


def has_filters(layer: Layer) -> bool:
    """Whether the layer has kernels that can be shown."""
    return layer.type in KERNELS


def check_channel(layer: Layer, channel: int | None) -> None:
    """Raises InvalidRequest: the layer has no such channel."""
    count = layer.shape[-1] if layer.shape else 1
    if channel is not None and channel >= count:
        raise InvalidRequest(f"expected channel 0 to {count - 1} of {layer.name}, got {channel}")


def none_channel(manifest: Manifest, layer: Layer) -> int | None:
    """The channel of the last layer that stands for none of the classes, where there is one after theirs."""
    classes = len(manifest.labels)
    return classes if layer is manifest.layers[-1] and layer.shape == [classes + 1] else None


def has_places(layer: Layer) -> bool:
    """Whether what the layer gives lies over the picture."""
    return len(layer.shape) == 3


def grid_place(channels: int, height: int, width: int) -> GridPlace:
    """Where the channels' maps are on the picture of all of them."""
    shown = min(channels, render.MOST_CELLS)
    return GridPlace(**render.layout(shown, height, width)._asdict(), channels=shown)


def map_array(model: Model, report: Report, data: bytes, layer: str, channel: int | None, max_pixels: int) -> bytes:
    """What a layer gives, float32 in its own shape or one channel of it, as a `.npy` file."""
    return _npy(_chosen(_output(model, data, layer, max_pixels), channel))


def map_statistics(
    model: Model, report: Report, data: bytes, layer: str, channel: int | None, max_pixels: int
) -> tuple[list[ChannelStatistics], GridPlace]:
    """Of each channel of a layer, or of one; and where each is on the picture of all."""
    maps = _maps(_output(model, data, layer, max_pixels))
    return _statistics(maps, channel), grid_place(*maps.shape)


def map_grid(model: Model, report: Report, data: bytes, layer: str, max_pixels: int) -> bytes:
    """Every channel of a layer as a cell of one PNG, each scaled by itself; the picture itself for `input`."""
    if layer == INPUT:
        return render.png(_large(_seen(model, data, max_pixels)))
    maps = _maps(_output(model, data, layer, max_pixels))[: render.MOST_CELLS]
    return render.png(render.sheet(maps, render.layout(*maps.shape), _colours(maps), _dead(maps)))


def map_alone(model: Model, report: Report, data: bytes, layer: str, channel: int, max_pixels: int) -> bytes:
    """One channel of a layer, large, as PNG."""
    maps = _maps(_output(model, data, layer, max_pixels))
    return render.png(_large(_colours(maps)(maps[channel])))


def map_over(model: Model, report: Report, data: bytes, layer: str, channel: int, max_pixels: int) -> bytes:
    """The picture, which shows where one channel of a layer is strong, as PNG."""
    maps = _given(model, _seen(model, data, max_pixels), layer)
    return render.png(over(decode(data, max_pixels=max_pixels), maps[..., channel], model.manifest.input))


def over(image: Image.Image, values: Floats, target: Input) -> Pixels:
    """A map [h, w] of a model's whole input as light on the picture: it shows where the map is strong."""
    place = placement(image.size, target)
    size = render.canvas_size(image.size, LARGE_SIDE, PICTURE_SIDE)
    picture = np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float32)
    across, down = size[0] / image.width, size[1] / image.height
    left, right = (round(edge * across) for edge in place.seen[::2])
    top, bottom = (round(edge * down) for edge in place.seen[1::2])
    window = np.s_[top : max(bottom, top + 1), left : max(right, left + 1)]
    shown = picture[window]
    rows, columns = values.shape[0] / target.height, values.shape[1] / target.width
    x, y = place.corner
    part = (x * columns, y * rows, (x + place.inner[0]) * columns, (y + place.inner[1]) * rows)
    values = np.nan_to_num(values)
    low, high = float(values.min()), float(values.max())
    shares = (values - low) / max(high - low, float(np.finfo(np.float32).tiny))
    strength = Image.fromarray(shares).resize((shown.shape[1], shown.shape[0]), Image.Resampling.BILINEAR, box=part)
    drawn = render.unseen(picture)
    drawn[window] = render.spotlight(shown, np.asarray(strength), OPACITY)
    pixels: Pixels = np.rint(drawn).astype(np.uint8)
    return pixels


def walk(model: Model, report: Report, data: bytes, max_pixels: int) -> Walked:
    """The picture through every layer to the answer, all layers in one inference."""
    batch = _seen(model, data, max_pixels)[None]
    answer = Outputs(*(output[0] for output in model.predict(batch)))
    names = [layer.name for layer in model.manifest.layers]
    outputs = model.activations(batch, names)
    return Walked(answer, [_summary(_maps(outputs[name][0])) for name in names])


def filter_array(model: Model, report: Report, layer: str, channel: int | None) -> bytes:
    """A layer's kernels, float32 [rows, columns, inputs, channels] or one without its last axis, as a `.npy` file."""
    return _npy(_chosen(kernel(model, layer), channel))


def filter_statistics(
    model: Model, report: Report, layer: str, channel: int | None
) -> tuple[list[int], list[ChannelStatistics], GridPlace]:
    """The kernels' shape, each channel's numbers, and where it is on the picture of all."""
    kernels = kernel(model, layer)
    flat = np.moveaxis(kernels, -1, 0).reshape(kernels.shape[-1], -1, 1)
    return list(kernels.shape), _statistics(flat, channel), grid_place(kernels.shape[-1], *kernels.shape[:2])


def filter_grid(model: Model, report: Report, layer: str) -> bytes:
    """A layer's kernels as cells of one PNG, each scaled by itself about zero.

    Those that look at the picture's red, green and blue are pictures in these colours, grey where they are zero. Of
    others a cell shows at each place the length of the kernel's vector over its inputs, with the sign of its sum: red
    adds, blue takes away.
    """
    kernels = kernel(model, layer)[..., : render.MOST_CELLS]
    dead = _dead(np.moveaxis(kernels, -1, 0))
    grid = render.layout(kernels.shape[-1], *kernels.shape[:2])
    seen = _as_colours(model, layer, kernels)
    if seen is not None:
        return render.png(render.sheet(np.moveaxis(seen, -1, 0), grid, _own_grey, dead))
    lengths = np.sqrt((kernels**2).sum(axis=2)) * np.where(kernels.sum(axis=2) < 0, -1, 1)
    maps = np.moveaxis(lengths, -1, 0).astype(np.float32)
    most = float(np.abs(maps).max())
    colour = _own_diverging if maps[0].size > 1 else partial(render.diverging, most=most)
    return render.png(render.sheet(maps, grid, colour, dead, paper=render.PAPER_ABOUT_ZERO))


def filter_alone(model: Model, report: Report, layer: str, channel: int) -> bytes:
    """The kernel of one channel as PNG: a cell for each input, all in one scale about zero."""
    maps = np.moveaxis(kernel(model, layer)[..., channel], -1, 0)[: render.MOST_CELLS]
    colour = partial(render.diverging, most=float(np.abs(maps).max()))
    if len(maps) == 1:
        return render.png(_large(colour(maps[0])))
    grid, dead = render.layout(*maps.shape), _dead(maps)
    return render.png(render.sheet(maps, grid, colour, dead, paper=render.PAPER_ABOUT_ZERO))


def kernel(model: Model, layer: str) -> Floats:
    """The kernels of a convolution, float32 [rows, columns, inputs, channels].

    A depthwise one has a single input each: channel `i * multiplier + m` looks at input `i`. Of a separable one it is
    the depthwise half.

    Raises:
        UnknownLayer: its weights are not where Keras puts them.
    """
    kind = next(found.type for found in model.manifest.layers if found.name == layer)
    values = model.weights().get(f"{layer}/{KERNELS[kind]}")
    if values is None or values.ndim != 4:
        raise UnknownLayer(f"expected a kernel of {layer} in {_version(model.manifest)}, found none")
    kernels: Floats = values.astype(np.float32)
    if kind == "Conv2DTranspose":
        kernels = kernels.swapaxes(2, 3)
    elif kind != "Conv2D":
        kernels = kernels.reshape(*kernels.shape[:2], 1, -1)
    return kernels


def _as_colours(model: Model, layer: str, kernels: Floats) -> Floats | None:
    """Kernels [h, w, 3, n] over red, green and blue, or None where their inputs are something else.

    Preprocessing may turn colours round, so it is asked: what a red, green or blue picture gives, less a black one.
    """
    if kernels.shape[2] != 3:
        return None
    before = sources(model.manifest.layers)[layer]
    if not before:
        return kernels
    target = model.manifest.input
    plain = np.zeros((4, target.height, target.width, 3), np.uint8)
    for colour in range(3):
        plain[colour, ..., colour] = 255
    outputs = model.activations(plain, before[:1])[before[0]].astype(np.float32)
    change = (outputs[:3] - outputs[3]).reshape(3, -1, outputs.shape[-1]).mean(axis=1)
    order = np.abs(change).argmax(axis=1)
    strongest = np.take_along_axis(change, order[:, None], axis=1)[:, 0]
    others = np.abs(change).sum() - np.abs(strongest).sum()
    if sorted(order) != [0, 1, 2] or others > 0.01 * np.abs(strongest).sum():
        return None
    colours: Floats = kernels[:, :, order] * np.sign(strongest)[:, None].astype(np.float32)
    return colours


def _own_sequential(values: Floats) -> Pixels:
    return render.sequential(values, float(values.min()), float(values.max()))


def _own_diverging(values: Floats) -> Pixels:
    return render.diverging(values, float(np.abs(values).max()))


def _own_grey(values: Floats) -> Pixels:
    return render.about_grey(values, float(np.abs(values).max()))


def _colours(maps: Floats) -> Callable[[Floats], Pixels]:
    # A single number has no scale of its own.
    if maps[0].size == 1:
        return partial(render.sequential, low=float(maps.min()), high=float(maps.max()))
    return _own_sequential


def _large(pixels: Pixels) -> Pixels:
    times = max(1, LARGE_SIDE // max(pixels.shape[:2]))
    return render.enlarge(pixels, (pixels.shape[1] * times, pixels.shape[0] * times))


def _seen(model: Model, data: bytes, max_pixels: int) -> Pixels:
    target = model.manifest.input
    return fit(decode(data, max_pixels=max_pixels, target=target), target)


def _output(model: Model, data: bytes, layer: str, max_pixels: int) -> Floats:
    return _given(model, _seen(model, data, max_pixels), layer)


def _given(model: Model, pixels: Pixels, layer: str) -> Floats:
    if layer == INPUT:
        return pixels.astype(np.float32)
    output: Floats = model.activations(pixels[None], [layer])[layer][0].astype(np.float32)
    return output


def _maps(output: NDArray[np.floating]) -> Floats:
    """Any layer's output as maps, float32 [channels, h, w]: numbers are maps of one pixel, more axes fall together."""
    channels = output.shape[-1] if output.ndim else 1
    height = output.shape[0] if output.ndim > 1 else 1
    maps: Floats = np.moveaxis(output.reshape(height, -1, channels), -1, 0).astype(np.float32)
    return maps


def _dead(maps: Floats) -> NDArray[np.bool_]:
    return np.array([not values.any() for values in maps])


def _chosen(values: Floats, channel: int | None) -> Floats:
    return values if channel is None else values[..., channel]


def _npy(values: Floats) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(values), allow_pickle=False)
    return file.getvalue()


def _statistics(maps: Floats, channel: int | None) -> list[ChannelStatistics]:
    chosen = range(len(maps)) if channel is None else [channel]
    return [
        ChannelStatistics(
            channel=index,
            mean=_short(maps[index].mean(dtype=np.float64)),
            max=_short(maps[index].max()),
            min=_short(maps[index].min()),
            sparsity=_short((maps[index] == 0).mean()),
            dead=not maps[index].any(),
        )
        for index in chosen
    ]


def _summary(maps: Floats) -> LayerSummary:
    return LayerSummary(
        mean=_short(maps.mean(dtype=np.float64)),
        max=_short(maps.max()),
        min=_short(maps.min()),
        sparsity=_short((maps == 0).mean()),
        dead_channels=int(_dead(maps).sum()),
    )


def _short(value: SupportsFloat) -> float:
    return float(f"{float(value):.{DIGITS}g}")


def _some(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=NEAR, cutoff=0.4)
    named = {*near, *[other for other in known if other not in near][: max(0, FEW - len(near))]}
    others = len(known) - len(named)
    # The network's own order.
    return f"one of {', '.join(layer for layer in known if layer in named)}" + (
        f" or {others} others" if others else ""
    )


def _version(manifest: Manifest) -> str:
    return f"{manifest.name}/{manifest.version}"
