"""OpenVINO runs the SavedModel on the CPU: it reads the graph itself, TensorFlow is not loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# OpenVINO reports its use to its makers when it is imported, unless this optional package is missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402

from service.engines.base import Outputs  # noqa: E402


class OpenVINOEngine:
    """One SavedModel's `serving_default`."""

    name = "openvino"
    # What it makes for a batch of a new size takes it 3 ms.
    compiles = False

    def __init__(self, folder: Path, *, threads: int, exact: bool = True) -> None:
        core = ov.Core()
        # Files below a running model may be replaced, or cut short while they are copied.
        core.set_property({"ENABLE_MMAP": "NO"})
        options: dict[str, str] = {
            "PERFORMANCE_HINT": "LATENCY",
            # Newer processors would choose bfloat16 by themselves, and answers would depend on the machine.
            "INFERENCE_PRECISION_HINT": "f32" if exact else "bf16",
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        self._request = core.compile_model(core.read_model(folder), "CPU", options).create_infer_request()

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        """See `Engine.predict`."""
        results = self._request.infer({"images": images}, share_inputs=True)
        return Outputs(*(results[name] for name in Outputs._fields))
