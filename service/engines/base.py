"""The interface that every engine has, and the check that it answers as the manifest promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.manifest import InvalidVersion, Manifest, probe_images

# Above the rounding of any kernel, TF32 included; below what wrong preprocessing or a wrong order of labels does.
PROBE_TOLERANCE = 0.01
# Of an engine that computes in bfloat16, with three digits in each of many layers.
ROUNDED_TOLERANCE = 0.05


class Outputs(NamedTuple):
    """What `serving_default` gives for N pictures and C classes."""

    probabilities: NDArray[np.float32]
    """[N, C], each row sums to 1."""
    logits: NDArray[np.float32]
    """[N, C]."""
    recognition: NDArray[np.float32]
    """[N]: the higher, the surer that the picture shows one of the classes."""


class Wishes(NamedTuple):
    """How an engine shall compute, as far as it can: see `service.engines.open_engine`."""

    threads: int
    exact: bool
    few: bool
    shared: Path | None


class Engine(Protocol):
    """A loaded SavedModel. One thread at a time calls it."""

    name: str
    compiles: bool
    """Whether the first batch of each of `batch_sizes` takes seconds, for it is compiled then."""

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        """Classify RGB pictures, uint8 [N, height, width, 3], at the manifest's size."""
        ...


def batch_sizes(max_batch: int) -> Sequence[int]:
    """Sizes up to the first that holds `max_batch`, each twice the one before: what is compiled."""
    return [1 << power for power in range((max_batch - 1).bit_length() + 1)]


def warm_up(engine: Engine, manifest: Manifest, max_batch: int) -> None:
    """Run the smallest and the largest batch once, or one of each size that is compiled, so that no request waits for
    that.
    """
    images = probe_images(manifest.input.height, manifest.input.width)
    for size in batch_sizes(max_batch) if engine.compiles else (1, max_batch):
        engine.predict(np.resize(images, (size, *images.shape[1:])))


def probe(engine: Engine, manifest: Manifest, tolerance: float = PROBE_TOLERANCE) -> None:
    """Compare the engine's answers with those that training wrote down.

    Raises:
        InvalidVersion: an answer has another shape, is not finite, or differs by more than `tolerance`.
    """
    outputs = engine.predict(probe_images(manifest.input.height, manifest.input.width))
    expected = np.asarray(manifest.probe.probabilities)
    for name, output, shape in zip(
        Outputs._fields, outputs, (expected.shape, expected.shape, expected.shape[:1]), strict=True
    ):
        if output.shape != shape:
            raise InvalidVersion(f"probe: expected {name} of shape {shape}, got {output.shape}")
        if not np.isfinite(output).all():
            raise InvalidVersion(f"probe: {name} are not all finite")
    difference = float(np.abs(outputs.probabilities - expected).max())
    if difference > tolerance:
        raise InvalidVersion(f"probe: probabilities differ from the manifest's by up to {difference:.3g}")
