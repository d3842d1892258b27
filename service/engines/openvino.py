"""OpenVINO runs the SavedModel on the CPU: it reads the graph itself, TensorFlow is not loaded."""

from __future__ import annotations

import fcntl
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from secrets import token_hex
from shutil import rmtree

import numpy as np
from numpy.typing import NDArray

# OpenVINO reports its use to its makers when it is imported, unless this optional package is missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402
import structlog  # noqa: E402

from service.engines.base import Outputs, Wishes  # noqa: E402

FILE = "model.xml"
UNCOUNTED = {
    *(
        "ConvolutionBackpropData",
        "GroupConvolutionBackpropData",
        "BinaryConvolution",
        "DeformableConvolution",
        "Einsum",
    ),
    *("LSTMSequence", "GRUSequence", "RNNSequence", "TensorIterator", "Loop", "If"),
}
# Of one picture: done before a second thread would have woken, on a core that has requests to read.
LIGHT_MULTIPLICATIONS = 20_000_000

log = structlog.get_logger()


class OpenVINOEngine:
    """One SavedModel's `serving_default`."""

    name = "openvino"
    # What it makes for a batch of a new size takes it 3 ms.
    compiles = False

    def __init__(
        self, folder: Path, *, threads: int, exact: bool = True, few: bool = False, shared: Path | None = None
    ) -> None:
        model = _read(folder) if shared is None else _map(folder, shared)
        if not threads and few and multiplications(model) <= LIGHT_MULTIPLICATIONS:
            threads = 1
        options: dict[str, str] = {
            "PERFORMANCE_HINT": "LATENCY",
            # Newer processors would choose bfloat16 by themselves, and answers would depend on the machine.
            "INFERENCE_PRECISION_HINT": "f32" if exact else "bf16",
        }
        if threads:
            # Pinned, those of several processes would meet on the same cores.
            options |= {"INFERENCE_NUM_THREADS": str(threads), "ENABLE_CPU_PINNING": "NO"}
        self._request = _compiler().compile_model(model, "CPU", options).create_infer_request()

    @property
    def threads(self) -> int:
        """Those that one inference takes."""
        return int(self._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS"))

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        """See `Engine.predict`."""
        results = self._request.infer({"images": images}, share_inputs=True)
        return Outputs(*(results[name] for name in Outputs._fields))


def open_engine(folder: Path, wishes: Wishes) -> OpenVINOEngine:
    """See `service.engines.open_engine`."""
    return OpenVINOEngine(folder, **wishes._asdict())


def multiplications(model: ov.Model) -> float:
    """What one picture takes, in its convolutions and dense layers; infinitely many where the graph does not tell, or
    has others that multiply as much.
    """
    total = 0.0
    for operation in model.get_ops():
        kind = operation.get_type_name()
        if kind in UNCOUNTED:
            return math.inf
        if kind in ("Convolution", "GroupConvolution", "MatMul"):
            weights, places = operation.get_input_partial_shape(1), operation.get_output_partial_shape(0)
            if weights.is_dynamic or places.rank.is_dynamic:
                return math.inf
            # Of the output, where all weights are used anew: rows and columns, or what is before the last.
            repeated = list(places)[1:-1] if kind == "MatMul" else list(places)[2:]
            if any(size.is_dynamic for size in repeated):
                return math.inf
            total += math.prod(size.get_length() for size in (*weights, *repeated))
    return total


@cache
def _compiler() -> ov.Core:
    # One for as long as the process runs: a core gives the thread that first compiles with it a stack for signals, and
    # takes that stack's memory away when it goes, though the thread may still use it; the next signal would end all.
    return ov.Core()


def _read(folder: Path) -> ov.Model:
    core = ov.Core()
    # Files below a running model may be replaced, or cut short while they are copied.
    core.set_property({"ENABLE_MMAP": "NO"})
    return core.read_model(folder)


def _map(folder: Path, shared: Path) -> ov.Model:
    """The model with weights that lie in memory once for all processes: from a file that none changes."""
    new = shared.with_name(token_hex(8))
    try:
        with _alone(shared.parent):
            if not shared.exists():
                new.mkdir()
                ov.save_model(_read(folder), new / FILE, compress_to_fp16=False)
                new.rename(shared)
        return ov.Core().read_model(shared / FILE)
    # What is no model is found to be none again; a disk that is full must not keep it from being served.
    except (OSError, RuntimeError) as problem:
        log.warning("weights_not_shared", reason=str(problem))
        return _read(folder)
    finally:
        rmtree(new, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time writes there: together they would need the disk and the memory of all."""
    locked = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(locked, fcntl.LOCK_EX)
        yield
    finally:
        os.close(locked)
