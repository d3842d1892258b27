"""A server's URL and a request's body in, requests a second out: wrk makes the load."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmarks.errors import BenchmarkFailed

SCRIPT = Path(__file__).with_name("post_picture.lua")
SIDE = 100
JPEG_BYTES = 3072
# Of a camera: about 2 MB at 12 megapixels, with much white.
NOISE, CAMERA_QUALITY = 6.0, 90
# A slow answer is slow, no failure.
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Load:
    """What wrk saw of one server in one run."""

    answers: int
    """With a status of 2xx."""
    seconds: float
    p50_ms: float
    p99_ms: float
    not_2xx: int
    socket_errors: int

    @property
    def requests_per_second(self) -> float:
        """Answered as they should be."""
        return self.answers / self.seconds

    @property
    def failures(self) -> int:
        """Requests that did not get what they asked for."""
        return self.not_2xx + self.socket_errors


def require_wrk() -> str:
    """Wrk's version.

    Raises:
        BenchmarkFailed: it is not installed.
    """
    if shutil.which("wrk") is None:
        raise BenchmarkFailed("wrk makes the load, and is not installed: apt-get install wrk")
    # `wrk -v` exits with a status of 1.
    words = subprocess.run(["wrk", "-v"], check=False, capture_output=True, text=True).stdout.split()
    return words[1] if len(words) > 1 else "unknown"


def small_jpeg(picture: Path) -> bytes:
    """Any picture as a JPEG of 100 x 100 pixels on white and about 3 KB.

    Raises:
        BenchmarkFailed: there is no such picture.
    """
    canvas = _on_white(picture, (SIDE, SIDE))
    return min((_jpeg(canvas, quality) for quality in range(20, 100)), key=lambda data: abs(len(data) - JPEG_BYTES))


def camera_jpeg(picture: Path, megapixels: float) -> bytes:
    """Any picture as a camera would store it: a JPEG of so many megapixels, 4 to 3, on white, with noise.

    Raises:
        BenchmarkFailed: there is no such picture.
    """
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    canvas = np.asarray(_on_white(picture, (round(height * 4 / 3), height)), np.float32)
    noisy = canvas + np.random.default_rng(0).normal(0, NOISE, canvas.shape).astype(np.float32)
    return _jpeg(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), CAMERA_QUALITY)


def post_repeatedly(url: str, content_type: str, body: Path, *, concurrency: int, seconds: int) -> Load:
    """Keep `concurrency` requests with the body open for some seconds.

    Raises:
        BenchmarkFailed: wrk failed.
    """
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", f"--timeout={ANSWER_SECONDS}s"]
    command += [f"--script={SCRIPT}", url, "--", content_type, str(body)]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    lines = finished.stdout.splitlines()
    if finished.returncode != 0 or not lines or not lines[-1].startswith("{"):
        raise BenchmarkFailed(f"wrk failed with status {finished.returncode}: {finished.stdout}{finished.stderr}")
    counted = json.loads(lines[-1])
    return Load(
        answers=counted["responses"] - counted["not_2xx"],
        seconds=counted["seconds"],
        p50_ms=counted["p50_ms"],
        p99_ms=counted["p99_ms"],
        not_2xx=counted["not_2xx"],
        socket_errors=counted["socket_errors"],
    )


def _on_white(picture: Path, size: tuple[int, int]) -> Image.Image:
    try:
        with Image.open(picture) as image:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except OSError as error:
        raise BenchmarkFailed(f"expected a picture at {picture}; choose one with --picture ({error})") from None
    inner = ImageOps.contain(upright, size, Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", size, "white")
    canvas.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2), mask=inner.getchannel("A"))
    return canvas


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
