"""A version, a picture and batch sizes in, pictures a second of our engine in a loop out: no HTTP, no decoding.

`python -m benchmarks.engine_alone models/fruit_cnn/1 picture.jpg 8 1 32`: eight seconds of each size, in JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.errors import BenchmarkFailed
from service.decode import decode, fit
from service.engines import choose_engine, open_engine
from service.engines.base import warm_up
from service.errors import ServiceError
from service.manifest import read_manifest
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
WARM_UP_SECONDS = 1.0


def largest_batch() -> int:
    """The service's, as the environment sets it.

    Raises:
        BenchmarkFailed: it sets something that the service has not.
    """
    try:
        return Settings.from_environ().max_batch
    except ServiceError as error:
        raise BenchmarkFailed(str(error)) from None


def engine_alone(version: Path, picture: Path, sizes: list[int], seconds: int) -> dict[int, float]:
    """By batch size: pictures a second, in a process that does nothing else.

    Raises:
        BenchmarkFailed: the engine does not run.
    """
    command = [sys.executable, "-m", "benchmarks.engine_alone", str(version.absolute()), str(picture), str(seconds)]
    finished = subprocess.run([*command, *map(str, sizes)], cwd=ROOT, check=False, capture_output=True, text=True)
    if finished.returncode:
        raise BenchmarkFailed(f"the engine alone ended with status {finished.returncode}: {finished.stderr[-2000:]}")
    return {int(size): rate for size, rate in json.loads(finished.stdout).items()}


def _rates(version: Path, picture: Path, sizes: list[int], seconds: float) -> dict[int, float]:
    settings = Settings.from_environ()
    manifest = read_manifest(version)
    engine = open_engine(choose_engine(settings.engine), version, threads=settings.threads)
    warm_up(engine, manifest, max(sizes))
    image = fit(decode(picture.read_bytes(), max_pixels=settings.max_pixels, target=manifest.input), manifest.input)
    rates = {}
    for size in sizes:
        batch = np.stack([image] * size)
        for length in (WARM_UP_SECONDS, seconds):
            count, started = 0, perf_counter()
            while (passed := perf_counter() - started) < length:
                engine.predict(batch)
                count += size
        rates[size] = count / passed
    return rates


if __name__ == "__main__":
    folder, file, length, *sizes = sys.argv[1:]
    json.dump(_rates(Path(folder), Path(file), [int(size) for size in sizes], float(length)), sys.stdout)
