"""What runs a SavedModel: one small interface, and a module for each engine."""

from __future__ import annotations

import ctypes
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import structlog

from service.choices import EngineName
from service.engines.base import Engine, Wishes
from service.errors import StartupFailed

log = structlog.get_logger()


def require_tensorflow() -> None:
    """Check that one of TensorFlow's two builds is installed, without loading it.

    Raises:
        StartupFailed: neither is, and it says what to install.
    """
    if find_spec("tensorflow") is None:
        raise StartupFailed(
            "TensorFlow is not installed: pip install -c constraints.txt -e '.[cpu]', "
            "or '.[gpu]' on a machine with an NVIDIA GPU"
        )


def choose_engine(name: Literal["auto"] | EngineName) -> EngineName:
    """Resolve `auto`: TensorFlow where it sees a GPU, else OpenVINO."""
    if name != "auto":
        return name
    if not _driver_shows_gpu():
        return "openvino"
    from service.engines.tensorflow import sees_gpu

    return "tensorflow" if sees_gpu() else "openvino"


def open_engine(
    name: EngineName,
    folder: Path,
    *,
    threads: int,
    exact: bool = True,
    few: bool = False,
    shared: Path | None = None,
) -> Engine:
    """Load the `serving_default` signature of the SavedModel in `folder`.

    Unless `exact`, a CPU may compute in bfloat16, where it has that: in half the time, with three digits. Processes
    that name the same place as `shared` have the weights in memory once, where the engine can do that. Where it will be
    asked for `few` pictures at once, a small network takes one thread, unless `threads` says how many.

    Each engine's module is imported only when it is used: TensorFlow alone takes seconds and hundreds of megabytes.
    """
    module = import_module(f"{__name__}.{name}")
    engine: Engine = module.open_engine(folder, Wishes(threads, exact, few, shared))
    return engine


def _driver_shows_gpu() -> bool:
    """Ask NVIDIA's driver, which honours CUDA_VISIBLE_DEVICES, instead of loading TensorFlow to ask it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
