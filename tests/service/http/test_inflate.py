from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.errors import InvalidRequest, UnsupportedMediaType
from service.http.inflate import PIECE, Inflate
from tests.conftest import draw, encode

pytestmark = pytest.mark.anyio
CONTENT = bytes(range(256)) * 1000
ENCODERS = [pytest.param("gzip", gzip.compress, id="gzip"), pytest.param("deflate", zlib.compress, id="deflate")]


async def received(encoding: str, *chunks: bytes) -> list[Message]:
    """What an app receives of a body that comes in these chunks, and then of a client that leaves."""
    sent: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": n < len(chunks)} for n, chunk in enumerate(chunks, 1)
    ]
    sent.append({"type": "http.disconnect"})
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not messages or messages[-1]["type"] == "http.request":
            messages.append(await receive())

    async def receive() -> Message:
        return sent.pop(0)

    async def send(message: Message) -> None:
        pass

    headers = [(b"content-encoding", encoding.encode())] if encoding else []
    await Inflate(app)({"type": "http", "headers": headers}, receive, send)
    return messages


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
@pytest.mark.parametrize(("encoding", "compress"), ENCODERS)
@pytest.mark.parametrize("content", [b"", b"x", CONTENT, bytes(PIECE), bytes(PIECE * 3 + 1)], ids=len)
async def test_a_body_arrives_as_it_was(
    content: bytes, encoding: str, compress: Callable[[bytes], bytes], size: int
) -> None:
    for chunks in (cut(compress(content), size), [*cut(compress(content), size), b""]):
        *pieces, gone = await received(encoding, *chunks)
        assert b"".join(piece["body"] for piece in pieces) == content
        assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]
        assert all(len(piece["body"]) <= PIECE for piece in pieces)
        assert gone == {"type": "http.disconnect"}


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
async def test_a_plain_body_is_left_alone(encoding: str) -> None:
    first, second, _ = await received(encoding, b"a", b"b")
    assert (first["body"], second["body"]) == (b"a", b"b")


@pytest.mark.parametrize(("encoding", "compress"), ENCODERS)
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: [data[:-5]], id="cut-off"),
        pytest.param(lambda data: [b""], id="empty"),
        pytest.param(lambda data: [b"x" + data], id="other-bytes"),
        pytest.param(lambda data: [data + b"more"], id="more-behind-it"),
        pytest.param(lambda data: [data, b"more"], id="more-behind-it-later"),
        pytest.param(lambda data: [data[:-2] + bytes(2)], id="other-checksum"),
    ],
)
async def test_a_damaged_body_is_refused(
    encoding: str, compress: Callable[[bytes], bytes], spoil: Callable[[bytes], list[bytes]]
) -> None:
    with pytest.raises(InvalidRequest, match=f"expected a body in {encoding}, got one that is damaged"):
        await received(encoding, *spoil(compress(CONTENT)))


async def test_others_have_their_turn_while_a_body_grows() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await received("gzip", gzip.compress(bytes(PIECE * 50)))
    task.cancel()
    assert turns >= 50


async def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(UnsupportedMediaType, match="expected gzip or deflate as Content-Encoding, got 'br'"):
        await received("br", b"x")


async def test_a_client_that_leaves_is_told_of() -> None:
    (message,) = await received("gzip")
    assert message == {"type": "http.disconnect"}


def test_predict_takes_compressed_bodies_too(live: httpx.Client) -> None:
    picture = encode(draw("circle", 1))
    headers = {"content-type": "image/png", "content-encoding": "gzip"}
    answer = live.post("/predict", content=gzip.compress(picture), headers=headers)
    assert (
        answer.json()["images"][0]["predictions"]
        == (live.post("/predict", files={"file": picture}).json()["images"][0]["predictions"])
    )
    refused = live.post("/predict", content=b"x", headers=headers | {"content-encoding": "br"})
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
