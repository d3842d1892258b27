"""Requests that are meant to do harm, each on a socket of its own, to one real process that bounds what it takes."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import re
import socket
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from PIL import Image

from tests.conftest import draw, encode
from tests.service.test_main import Program

MIB = 2**20
MOST_PIXELS, MOST_BODY = 4_000_000, 8 * MIB
MOST_GROWTH = 256 * MIB
# Nobody waits longer: what has no answer then fails its test.
PATIENCE = 30
CLOSED = 0
PICTURE = encode(draw("circle", 1))


class Attack(NamedTuple):
    """What is sent, and what may come of it: a status of 4xx, or one of these."""

    name: str
    sent: Callable[[], Iterable[bytes]]
    also: frozenset[int] = frozenset()


# What is read whole, or not at all; and what may be cut off before it was sent, so that the answer may be lost.
OK, CUT = frozenset({200}), frozenset({CLOSED})
ATTACKS: list[Attack] = []


def attack(name: str, *parts: bytes, also: frozenset[int] = frozenset()) -> None:
    ATTACKS.append(Attack(name, lambda: parts, also))


def stream(name: str, parts: Callable[[], Iterable[bytes]], also: frozenset[int] = CUT) -> None:
    ATTACKS.append(Attack(name, parts, also))


def head(line: str, *headers: str, host: bool = True) -> bytes:
    lines = [line, *(["host: x"] if host else []), *headers, "connection: close"]
    return "".join(f"{each}\r\n" for each in lines).encode("latin-1") + b"\r\n"


def post(path: str, body: bytes, kind: str, *headers: str) -> bytes:
    return head(f"POST {path} HTTP/1.1", f"content-type: {kind}", f"content-length: {len(body)}", *headers) + body


def form(*pictures: bytes) -> tuple[bytes, str]:
    parts = [
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + data + b"\r\n"
        for data in pictures
    ]
    return b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b"


# Pictures.


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in ((b"IHDR", header), *chunks, (b"IEND", b"")))


def tiff(*tags: tuple[int, int, int, int], offset: int = 8, following: int = 0) -> bytes:
    """Little-endian; each tag: number, type, count, value."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", offset, len(tags)) + entries + struct.pack("<I", following)


def frames(kind: str, number: int) -> bytes:
    first, *rest = (Image.new("RGB", (64, 64), (shade % 256, 0, 0)) for shade in range(number))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=rest)
    return file.getvalue()


ROWS = zlib.compress(bytes(2000 * (2000 * 3 + 1)), 9)
ENTITIES = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><svg>&b;</svg>'
SIZE = ((256, 4, 1, 8), (257, 4, 1, 8))
JPEG = encode(draw("circle", 1), "JPEG")
FRAME = JPEG.index(b"\xff\xc0") + 5
PICTURES: dict[str, tuple[bytes, frozenset[int]]] = {
    "nothing": (b"", frozenset()),
    "one-byte": (b"\0", frozenset()),
    "png-50000-squared": (png(50_000, 50_000, (b"IDAT", ROWS)), frozenset()),
    "png-2^31-wide": (png(2**31 - 1, 1, (b"IDAT", b"")), frozenset()),
    "png-no-width": (png(0, 5, (b"IDAT", b"")), frozenset()),
    "png-a-pixel-too-many": (png(4001, 1000, (b"IDAT", ROWS)), frozenset()),
    "png-inflated-at-the-limit": (png(2000, 2000, (b"IDAT", ROWS)), OK),
    "png-one-bit-at-the-limit": (png(2000, 2000, (b"IDAT", zlib.compress(bytes(2000 * 251))), depth=1, colour=0), OK),
    "png-more-rows-than-promised": (png(4, 4, (b"IDAT", ROWS)), OK),
    "png-fewer-rows-than-promised": (png(2000, 2000, (b"IDAT", zlib.compress(b"\0" * 99))), frozenset()),
    "png-no-data": (png(8, 8), frozenset()),
    "png-text-bomb": (png(1, 1, (b"zTXt", b"k\0\0" + zlib.compress(bytes(100 * MIB), 9)), (b"IDAT", ROWS)), OK),
    "png-profile-bomb": (png(1, 1, (b"iCCP", b"k\0\0" + zlib.compress(bytes(100 * MIB), 9)), (b"IDAT", ROWS)), OK),
    "png-international-text-bomb": (
        png(1, 1, (b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(100 * MIB), 9)), (b"IDAT", ROWS)),
        OK,
    ),
    "png-a-thousand-texts": (png(1, 1, *[(b"tEXt", b"k\0" + bytes(2000))] * 1000, (b"IDAT", ROWS)), OK),
    "png-2^32-frames": (png(2, 2, (b"acTL", struct.pack(">II", 2**31 - 1, 0)), (b"IDAT", ROWS)), OK),
    "png-odd-depth": (png(2, 2, (b"IDAT", ROWS), depth=3), frozenset()),
    "png-huge-chunk": (png(2, 2)[:-12] + struct.pack(">I", 2**31 - 1) + b"IDAT", frozenset()),
    "gif-65535-squared": (b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b"\x2c" + bytes(9), frozenset()),
    "gif-large-frame": (
        b"GIF89a"
        + struct.pack("<HHBBB", 2, 2, 0, 0, 0)
        + b"\x2c"
        + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0)
        + b"\x08",
        frozenset(),
    ),
    "gif-of-300-frames": (frames("GIF", 300), OK),
    "gif-endless-comment": (
        b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0, 0, 0) + (b"\x21\xfe" + b"\xffx" * 128) * 99,
        frozenset(),
    ),
    "webp-of-300-frames": (frames("WEBP", 300), OK),
    "webp-cut-off": (encode(draw("circle", 1), "WEBP")[:40], frozenset()),
    "webp-other-length": (b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(40), frozenset()),
    "webp-16383-squared": (
        b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xfe\x3f\0\xfe\x3f\0",
        frozenset(),
    ),
    "avif-cut-off": (encode(draw("circle", 1), "AVIF")[:200], frozenset()),
    "avif-brand-only": (b"\0\0\0\x18ftypavif" + bytes(12), frozenset()),
    "bmp-huge": (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        frozenset(),
    ),
    "bmp-negative": (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, -8, -8, 1, 24, 0, 0, 0, 0, 0, 0),
        frozenset(),
    ),
    "bmp-runs-without-end": (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 1999, 1999, 1, 8, 1, 0, 0, 0, 0, 0) + b"\xff\0" * 999,
        frozenset(),
    ),
    "tiff-huge-tile": (
        tiff(*SIZE, (258, 3, 1, 8), (262, 3, 1, 1), (322, 4, 1, 2**30), (323, 4, 1, 2**30), (324, 4, 1, 8)),
        frozenset(),
    ),
    "tiff-huge-count": (tiff(*SIZE, (273, 4, 2**32 - 1, 8), (279, 4, 2**32 - 1, 8)), frozenset()),
    "tiff-that-follows-itself": (tiff(*SIZE, following=8), frozenset()),
    "tiff-nothing-behind-it": (tiff(offset=2**32 - 1), frozenset()),
    "tiff-floats": (encode(Image.new("F", (8, 8)), "TIFF"), frozenset()),
    "tiff-65535-tags": (b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(99), frozenset()),
    "tiff-of-300-frames": (frames("TIFF", 300), OK),
    "jpeg-65535-squared": (JPEG[:FRAME] + b"\xff\xff\xff\xff" + JPEG[FRAME + 4 :], frozenset()),
    "jpeg-no-height": (JPEG[:FRAME] + b"\0\0\0\0" + JPEG[FRAME + 4 :], frozenset()),
    "jpeg-ten-thousand-scans": (JPEG[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 10_000, frozenset()),
    "jpeg-head-only": (JPEG[:200], frozenset()),
    "jpeg-endless-markers": (b"\xff\xd8" + b"\xff" * 100_000, frozenset()),
    "jpeg-endless-segments": (b"\xff\xd8" + b"\xff\xe1\0\x02" * 50_000, frozenset()),
    "svg-entities": (ENTITIES.encode(), frozenset()),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file", frozenset()),
    "portable-pixmap": (b"P6 50000 50000 255\n", frozenset()),
    "icon": (b"\0\0\1\0\1\0" + bytes(16) + PICTURE, frozenset()),
    "photoshop": (b"8BPS\0\1" + bytes(60), frozenset()),
    "jpeg-2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60), frozenset()),
    "zip": (b"PK\3\4" + bytes(60), frozenset()),
    "pickle": (b"\x80\x04cos\nsystem\n(S'id'\ntR.", frozenset()),
    "program": (b"\x7fELF" + bytes(60), frozenset()),
    "html": (b"<script>alert(1)</script>", frozenset()),
}
for name, (data, also) in PICTURES.items():
    attack(f"{name}-raw", post("/predict", data, "image/png"), also=also)
    attack(f"{name}-form", post("/predict", *form(data)), also=also)
    encoded = json.dumps({"image": base64.b64encode(data).decode()}).encode()
    attack(f"{name}-json", post("/predict", encoded, "application/json"), also=also)
for name in ("png-50000-squared", "nothing", "tiff-huge-tile", "jpeg-ten-thousand-scans", "pickle"):
    encoded = base64.b64encode(PICTURES[name][0]).decode()
    attack(
        f"{name}-v1", post("/v1/models/shapes:predict", json.dumps({"instances": [{"b64": encoded}]}).encode(), "x/y")
    )
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [encoded]}
    attack(f"{name}-v2", post("/v2/models/shapes/infer", json.dumps({"inputs": [tensor]}).encode(), "x/y"))
    attack(f"{name}-explain", post("/explain?samples=16", PICTURES[name][0], "image/png"))
attack("name-leads-out", post("/predict", form(b"")[0].replace(b'"a"', b'"../../../etc/passwd\\0"'), form()[1]))
attack("33-pictures", post("/predict", *form(*[PICTURE] * 33)))
attack("one-bad-of-32", post("/predict", *form(*[PICTURE] * 31, PICTURES["png-50000-squared"][0])))


# Bodies.


def chunked(pieces: Iterable[bytes], kind: str = "image/png", path: str = "/predict", *headers: str) -> Iterator[bytes]:
    yield head(f"POST {path} HTTP/1.1", f"content-type: {kind}", "transfer-encoding: chunked", *headers)
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


@cache
def bomb(mebibytes: int, compressor: Callable[[], zlib._Compress]) -> bytes:
    squeeze = compressor()
    return b"".join(squeeze.compress(bytes(MIB)) for _ in range(mebibytes)) + squeeze.flush()


def gzipped() -> zlib._Compress:
    return zlib.compressobj(9, zlib.DEFLATED, 31)


stream(
    "100-mb-announced", lambda: [head("POST /predict HTTP/1.1", "content-type: image/png", f"content-length: {10**8}")]
)
stream(
    "100-mb-sent",
    lambda: [
        head("POST /predict HTTP/1.1", "content-type: image/png", f"content-length: {100 * MIB}"),
        *[bytes(MIB)] * 100,
    ],
)
stream("100-mb-in-chunks", lambda: chunked([bytes(MIB)] * 100))
stream("endless-small-chunks", lambda: chunked([b"x" * 16] * (MIB)))
stream("100-mb-form-in-chunks", lambda: chunked([form()[0], *[bytes(MIB)] * 100], form()[1]))
for path in (
    "/v1/models/shapes:predict",
    "/v2/models/shapes/infer",
    "/explain",
    "/explanations",
    "/activations?layer=logits",
):
    stream(f"100-mb-to{path}", lambda path=path: chunked([bytes(MIB)] * 100, "image/png", path))  # type: ignore[misc]
stream(
    "100-mb-to-a-get",
    lambda: [head("GET /models HTTP/1.1", f"content-length: {100 * MIB}"), *[bytes(MIB)] * 100],
    CUT | OK,
)
for name, compressor in (("gzip", gzipped), ("deflate", zlib.compressobj)):
    stream(
        f"{name}-bomb",
        lambda c=compressor, n=name: [post("/predict", bomb(1024, c), "image/png", f"content-encoding: {n}")],  # type: ignore[misc]
    )
    attack(f"{name}-cut-off", post("/predict", bomb(1, compressor)[:-9], "image/png", f"content-encoding: {name}"))
attack(
    "gzip-of-gzip", post("/predict", gzip.compress(gzip.compress(PICTURE)), "image/png", "content-encoding: gzip, gzip")
)
attack("gzip-that-is-none", post("/predict", PICTURE, "image/png", "content-encoding: gzip"))
attack("brotli", post("/predict", PICTURE, "image/png", "content-encoding: br"))
PART = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n\r\n'
attack("five-thousand-parts", post("/predict", PART * 5000 + b"--b--", form()[1]))
attack("half-a-million-empty-parts", post("/predict", b"--b\r\n\r\n" * 500_000 + b"--b--", form()[1]))
attack("no-boundary", post("/predict", form(PICTURE)[0], "multipart/form-data"))
attack("long-boundary", post("/predict", b"--" + b"b" * 8000, f"multipart/form-data; boundary={'b' * 8000}"))
attack("form-that-does-not-end", post("/predict", form(PICTURE)[0][:-6], form()[1]))
attack("form-in-a-form", post("/predict", *form(form(b"x")[0].replace(b"--b", b"--c"))))
attack("many-headers-of-a-part", post("/predict", PART[:-2] + b"x: y\r\n" * 100_000 + b"\r\n\r\n--b--", form()[1]))
attack("long-header-of-a-part", post("/predict", PART.replace(b'"a"', b'"' + b"a" * MIB + b'"') + b"--b--", form()[1]))
attack("part-without-a-name", post("/predict", PART.replace(b'name="file"; ', b"") + b"--b--", form()[1]))
attack("other-field", post("/predict", form(PICTURE)[0].replace(b'"file"', b'"image"'), form()[1]))
attack("urlencoded", post("/predict", b"file=" + b"a" * 1000, "application/x-www-form-urlencoded"))
attack("no-type", post("/predict", PICTURE, ""))
attack("type-without-end", post("/predict", PICTURE, "multipart/form-data; boundary=" + '"' * 4000))
DOCUMENTS: dict[str, bytes] = {
    "deep-lists": b"[" * 1_000_000,
    "deep-objects": b'{"image":' * 200_000 + b"1" + b"}" * 200_000,
    "many-keys": b"{" + b",".join(b'"%d":1' % n for n in range(200_000)) + b"}",
    "many-commas": b"[" + b"0," * 2_000_000 + b"0]",
    "long-number": b'{"image": ' + b"9" * MIB + b"}",
    "great-number": b'{"image": 1e999999999}',
    "not-utf-8": b'{"image": "\xff\xfe\xc0\x80"}',
    "half-a-surrogate": b'{"image": "\\ud800"}',
    "utf-16": '{"image": "aaaa"}'.encode("utf-16"),
    "twice-the-key": b'{"image": "aaaa", "image": "bbbb"}',
    "null": b'{"image": null}',
    "cut-off": b'{"image": "aaa',
    "no-base64": b'{"image": "' + b"!" * MIB + b'"}',
    "nothing-at-all": b"",
    "nul": b"\0" * 1000,
}
for name, document in DOCUMENTS.items():
    for path in (
        "/predict",
        "/explanations?image_id=" + "0" * 64,
        "/v1/models/shapes:predict",
        "/v2/models/shapes/infer",
    ):
        attack(f"{name}-to{path[:13]}", post(path, document, "application/json"))
INFER = "/v2/models/shapes/infer"
TENSORS: dict[str, dict[str, object]] = {
    "huge-shape": {"datatype": "UINT8", "shape": [2**31, 16, 12, 3], "data": [1]},
    "overflowing-shape": {"datatype": "UINT8", "shape": [2**63, 2**63], "data": []},
    "negative-shape": {"datatype": "UINT8", "shape": [-1, 16, 12, 3], "data": []},
    "no-shape": {"datatype": "UINT8", "shape": [], "data": []},
    "long-shape": {"datatype": "UINT8", "shape": [1] * 100_000, "data": [1]},
    "other-type": {"datatype": "FP64", "shape": [1], "data": [1.5]},
    "great-binary": {"datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 2**62}},
    "negative-binary": {"datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": -4}},
}
for name, given in TENSORS.items():
    attack(f"tensor-{name}", post(INFER, json.dumps({"inputs": [{"name": "images", **given}]}).encode(), "x/y"))
BINARY = json.dumps(
    {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}}]}
).encode()
for name, length, tail in (
    ("great-element", len(BINARY), b"\xff\xff\xff\xffabcd"),
    ("short", len(BINARY), b"\4\0\0"),
    ("past-the-end", 10**12, b"\4\0\0\0abcd"),
    ("negative", -1, b"\4\0\0\0abcd"),
):
    attack(f"binary-{name}", post(INFER, BINARY + tail, "x/y", f"inference-header-content-length: {length}"))


# HTTP itself.

for name, sent in {
    "no-request": b"\r\n\r\nhello\r\n\r\n",
    "zeros": bytes(4000),
    "tls": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(300) + b"\r\n\r\n",
    "http-0.9": b"GET /nothing\r\n\r\n",
    "http-3.0": b"GET / HTTP/3.0\r\nhost: x\r\n\r\n",
    "http-2-at-once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown-method": head("BREW /predict HTTP/1.1"),
    "lower-case-method": head("get /predict HTTP/1.1"),
    "trace": head("TRACE / HTTP/1.1", "x-secret: 1"),
    "connect": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: x\r\n\r\n",
    "options-all": head("OPTIONS * HTTP/1.1"),
    "proxy": head("GET http://127.0.0.1:22/nothing HTTP/1.1"),
    "space-in-path": head("GET /a b HTTP/1.1"),
    "raw-nul-in-path": head("GET /mod\0els HTTP/1.1"),
    "raw-bytes-in-path": head("GET /\xff\xfe HTTP/1.1"),
    "header-without-colon": head("GET /nothing HTTP/1.1", "x"),
    "header-without-name": head("GET /nothing HTTP/1.1", ": x"),
    "space-before-colon": head("GET /nothing HTTP/1.1", "host : x"),
    "folded-header": head("GET /nothing HTTP/1.1", "x: a\r\n b"),
    "nul-in-header": head("GET /nothing HTTP/1.1", "x: a\0b"),
    "return-in-header": head("GET /nothing HTTP/1.1", "x: a\rb"),
    "length-negative": head("POST /predict HTTP/1.1", "content-length: -1") + b"x",
    "length-plus": head("POST /predict HTTP/1.1", "content-length: +1") + b"x",
    "length-hex": head("POST /predict HTTP/1.1", "content-length: 0x1") + b"x",
    "length-no-number": head("POST /predict HTTP/1.1", "content-length: one") + b"x",
    "length-great": head("POST /predict HTTP/1.1", f"content-length: {10**40}") + b"x",
    "length-list": head("POST /predict HTTP/1.1", "content-length: 1, 1") + b"x",
    "length-twice": head("POST /predict HTTP/1.1", "content-length: 1", "content-length: 2") + b"xy",
    "length-and-chunks": head("POST /predict HTTP/1.1", "content-length: 5", "transfer-encoding: chunked")
    + b"0\r\n\r\nGET /",
    "chunks-and-length": head("POST /predict HTTP/1.1", "transfer-encoding: chunked", "content-length: 5")
    + b"0\r\n\r\nGET /",
    "chunked-twice": head("POST /predict HTTP/1.1", "transfer-encoding: chunked, chunked") + b"0\r\n\r\n",
    "chunked-not-last": head("POST /predict HTTP/1.1", "transfer-encoding: chunked, identity") + b"0\r\n\r\n",
    "chunked-misspelt": head("POST /predict HTTP/1.1", "transfer-encoding: xchunked") + b"0\r\n\r\n",
    "chunk-no-number": head("POST /predict HTTP/1.1", "transfer-encoding: chunked") + b"zz\r\nabc\r\n0\r\n\r\n",
    "chunk-negative": head("POST /predict HTTP/1.1", "transfer-encoding: chunked") + b"-1\r\nabc\r\n0\r\n\r\n",
    "chunk-great": head("POST /predict HTTP/1.1", "transfer-encoding: chunked") + b"f" * 20 + b"\r\nabc\r\n0\r\n\r\n",
    "chunk-longer-than-it-says": head("POST /predict HTTP/1.1", "transfer-encoding: chunked")
    + b"1\r\nabcdef\r\n0\r\n\r\n",
    "expects-nonsense": head("POST /predict HTTP/1.1", "expect: 200-ok", "content-length: 1") + b"x",
    "expects-to-go-on-with-too-much": head(
        "POST /predict HTTP/1.1", "expect: 100-continue", f"content-length: {10**9}"
    ),
    "websocket": b"GET /predict HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    "websocket-without-key": b"GET /predict HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "http-2-upgrade": head("GET /nothing HTTP/1.1", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"),
}.items():
    attack(name, sent)
attack("http-1.0", b"POST /predict HTTP/1.0\r\n\r\n")
attack(
    "more-than-announced", head("POST /predict HTTP/1.1", "content-type: image/png", "content-length: 1") + b"x" * 9999
)
attack("long-path", head(f"GET /{'a' * 60_000} HTTP/1.1"))
attack("long-query", head(f"GET /models?{'a=b&' * 15_000} HTTP/1.1"))
stream("endless-path", lambda: [b"GET /", *[b"a" * 1000] * 1000])
stream("endless-header", lambda: [b"GET / HTTP/1.1\r\nx: ", *[b"a" * 1000] * 1000])
stream("a-hundred-thousand-headers", lambda: [b"GET / HTTP/1.1\r\n", *[b"x: y\r\n" * 100] * 1000])
TRAILERS = [b"0\r\n", *[b"x: " + b"y" * MIB + b"\r\n"] * 400]
stream("endless-trailers", lambda: [*list(chunked([b"x"]))[:-1], *TRAILERS])
stream(
    "endless-trailers-to-a-get",
    lambda: [head("GET /health/live HTTP/1.1", "transfer-encoding: chunked"), *TRAILERS],
    CUT | OK,
)
stream("long-chunk-extension", lambda: [next(chunked([])), b"1;" + b"x" * 100_000, b"\r\na\r\n0\r\n\r\n"])


# Names, ids and numbers.

LEADING_OUT = (
    "../../../../etc/passwd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%00",
    "%00",
    "//etc/passwd",
    "....//....//etc/passwd",
    "%ff%fe",
    "%zz",
    "..%5c..%5cboot.ini",
)
for outward in LEADING_OUT:
    for path in (
        "/images/",
        "/models/",
        "/models/shapes/versions/",
        "/models/shapes/versions/1/report/",
        "/explanations/",
    ):
        attack(f"{path}{outward}", head(f"GET {path}{outward} HTTP/1.1"), also=CUT)
for path in (
    "/static-offline-docs/../../../../etc/passwd",
    "/docs/%2e%2e/%2e%2e/etc/passwd",
    f"/models/{'m' * 10_000}",
    f"/models/shapes/versions/{10**30}",
    "/models/shapes/versions/-1",
    "/models/shapes/versions/1.5",
    "/models/shapes/versions/%EF%BC%91",
    "/v1/models/shapes/versions/99999999999999999999",
    "/v2/models/..%2f..%2f/ready",
    "/images/" + "G" * 64,
    "/images/" + "0" * 64,
    "/explain?image_id=../../etc/passwd",
    "/explain?image_id=" + "0" * 64 + "&samples=1000000000",
    "/explain?image_id=" + "0" * 64 + "&seed=-1&superpixels=1e9",
    "/walk?image_id=" + "0" * 63,
    "/walk?top_k=" + "9" * 4000,
    "/activations?layer=__class__&image_id=" + "0" * 64,
    "/models/shapes/filters?layer=../../saved_model.pb",
    "/models/shapes/filters?layer=logits&channel=" + "9" * 40,
    "/models/shapes/graph?version=0",
):
    attack(f"get{path[:40]}{path[-28:]}", head(f"GET {path} HTTP/1.1"))
for query in (
    "top_k=1e18",
    "top_k=-1",
    "version=0",
    "version=%00",
    "model=..%2fshapes",
    "model=%ff",
    "a[b]=1",
    "store=maybe",
    "model=shapes;drop",
):
    attack(f"predict?{query}", post(f"/predict?{query}", PICTURE, "image/png"))
for value in ("nan", "inf", "-1", "0", "1e400", "9" * 400, "1;2", "\xb2"):
    attack(f"timeout-{value[:9]}", post("/predict", PICTURE, "image/png", f"x-request-timeout: {value}"), also=CUT)
for method, path in (
    ("PUT", "/models/shapes/labels"),
    ("POST", "/models/shapes/versions/1:unload"),
    ("DELETE", "/models/shapes"),
):
    attack(
        f"admin-{method}{path}",
        head(f"{method} {path} HTTP/1.1", "authorization: Bearer ' OR 1=1 --", "content-length: 0"),
    )


# The test.


@pytest.fixture(scope="module")
def attacked(shapes_models: Path) -> Iterator[Program]:
    program = Program(
        SICHTBAR_MODELS=str(shapes_models),
        SICHTBAR_ENGINE="openvino",
        SICHTBAR_TIMEOUT="4",
        SICHTBAR_MAX_PIXELS=str(MOST_PIXELS),
        SICHTBAR_MAX_BODY_BYTES=str(MOST_BODY),
        SICHTBAR_MAX_TOTAL_BYTES=str(4 * MOST_BODY),
    )
    yield program
    program.process.kill()
    program.process.wait()
    assert program.process.stdout
    program.process.stdout.close()


class Target(NamedTuple):
    """Where the service is, and what memory it has before it is attacked."""

    address: tuple[str, int]
    resident: int


@pytest.fixture(scope="module")
def target(attacked: Program) -> Target:
    url = httpx.URL(str(attacked.wait_for("serving")["url"]))
    assert httpx.post(url.join("/predict"), files={"file": PICTURE}).status_code == 200
    # From here on the peak of its memory is that of the attacks.
    Path(f"/proc/{attacked.process.pid}/clear_refs").write_text("5")
    return Target((url.host, url.port or 80), peak_bytes(attacked))


@pytest.fixture
def address(target: Target) -> tuple[str, int]:
    return target.address


def status_of(address: tuple[str, int], sent: Iterable[bytes]) -> int:
    """What a request is answered, or that the connection is closed without a word."""
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        # It may be answered, and closed, before it was sent.
        with contextlib.suppress(ConnectionError):
            for part in sent:
                connection.sendall(part)
        received = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n\r\n" not in received and (part := connection.recv(65_536)):
                received += part
    answered = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
    return int(answered[1]) if answered else CLOSED


def peak_bytes(program: Program) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{program.process.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names) >= 200


@pytest.mark.parametrize("attack", ATTACKS, ids=[re.sub(r"[^\w./:-]", "_", attack.name)[:60] for attack in ATTACKS])
def test_harm_is_refused(address: tuple[str, int], attack: Attack) -> None:
    status = status_of(address, attack.sent())
    assert 400 <= status < 500 or status in attack.also, status


SLOW = {
    "head": (b"GET /health/live HTTP/1.1\r\nx: ", b"a"),
    "nothing": (b"", b""),
    "raw-body": (head("POST /predict HTTP/1.1", "content-type: image/png", "content-length: 5000"), b"a"),
    "form": (head("POST /predict HTTP/1.1", f"content-type: {form()[1]}", "content-length: 5000"), b"a"),
    "chunks": (head("POST /predict HTTP/1.1", "content-type: image/png", "transfer-encoding: chunked"), b"1\r\na\r\n"),
    "chunk-that-never-comes": (head("POST /predict HTTP/1.1", "transfer-encoding: chunked") + b"fff\r\n", b""),
    "v1": (head("POST /v1/models/shapes:predict HTTP/1.1", "content-length: 5000"), b"a"),
    "v2": (head("POST /v2/models/shapes/infer HTTP/1.1", "content-length: 5000"), b"a"),
    "explain": (head("POST /explain HTTP/1.1", "content-type: image/png", "content-length: 5000"), b"a"),
    "question": (head("POST /explanations HTTP/1.1", "content-type: application/json", "content-length: 5000"), b"{"),
    "gzip": (
        head("POST /predict HTTP/1.1", "content-type: image/png", "content-encoding: gzip", "content-length: 99"),
        b"",
    ),
    "gone-on": (
        head("POST /predict HTTP/1.1", "expect: 100-continue", "content-type: image/png", "content-length: 9"),
        b"",
    ),
}


def drip(address: tuple[str, int], start: bytes, drop: bytes) -> bytes:
    """Send a byte now and then until the other side has had enough."""
    received = b""
    with socket.create_connection(address, timeout=0.2) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(start)
        for _ in range(PATIENCE * 5):
            with contextlib.suppress(TimeoutError):
                part = connection.recv(65_536)
                received += part
                if not part:
                    return received
            if drop:
                connection.sendall(drop)
        raise AssertionError("it has more patience than it should")
    return received


def test_slow_clients_are_given_up_while_others_are_served(address: tuple[str, int]) -> None:
    slow = [one for one in SLOW.values() for _ in range(8)]
    with ThreadPoolExecutor(len(slow)) as threads:
        dripping = [threads.submit(drip, address, *one) for one in slow]
        assert status_of(address, [post("/predict", PICTURE, "image/png")]) == 200
        answers = [each.result() for each in dripping]
    for answer in answers:
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
        assert [status for status in statuses if status != 100 and not 400 <= status < 500] == [], answer


def test_many_bombs_at_once_are_refused(address: tuple[str, int]) -> None:
    bombs = [attack for attack in ATTACKS if "bomb" in attack.name or "50000" in attack.name or "100-mb" in attack.name]
    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(lambda attack: status_of(address, attack.sent()), bombs * 2))
    assert {status for status in statuses if not 400 <= status < 500} <= {200, 503, CLOSED}


def test_after_all_that_it_answers_well_within_its_memory_and_without_a_mistake(
    target: Target, attacked: Program
) -> None:
    url = "http://{}:{}".format(*target.address)
    answer = httpx.post(f"{url}/predict", files={"file": PICTURE}, timeout=PATIENCE)
    assert answer.json()["images"][0]["predictions"][0]["label"] == "circle"
    assert httpx.get(f"{url}/health/ready").status_code == 200
    assert peak_bytes(attacked) < target.resident + MOST_GROWTH
    assert attacked.stop() == 0
    logged = attacked.rest()
    assert [line for line in logged if line["level"] in ("error", "critical")] == []
