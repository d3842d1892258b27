"""What a command is given, paths and addresses, in; pictures out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import httpx

from service.decode import FORMATS

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"} | (
    {".avif"} if "AVIF" in FORMATS else set()
)
MOST_BYTES = 256 * 2**20
FETCH_SECONDS = 30.0


class SourceError(Exception):
    """A picture is not there, or cannot be read."""


class Source(NamedTuple):
    """One picture, not read yet."""

    name: str
    """A path below what was given: no two are alike."""
    shown: str
    """As it was given, or as it lies in the folder that was."""
    place: Path | httpx.URL

    async def read(self, web: httpx.AsyncClient) -> Path | bytes:
        """The file, or what is at the address: this program fetches it, never the service.

        Raises:
            SourceError: it cannot be had.
        """
        if isinstance(self.place, Path):
            return self.place
        content = bytearray()
        try:
            async with web.stream("GET", self.place) as answer:
                if answer.status_code != 200:
                    raise SourceError(f"expected a picture there, got {answer.status_code} {answer.reason_phrase}")
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > MOST_BYTES:
                        raise SourceError(f"expected at most {MOST_BYTES} bytes, got more")
        except httpx.HTTPError as error:
            raise SourceError(f"it cannot be fetched: {error or type(error).__name__}") from None
        return bytes(content)


def fetching() -> httpx.AsyncClient:
    """What fetches pictures: it shows nobody a key."""
    return httpx.AsyncClient(follow_redirects=True, timeout=FETCH_SECONDS)


def gather(given: Sequence[str], out: Path | None = None) -> list[Source]:
    """The pictures of files, of folders and those below, but for `out`, and at addresses; in the order given.

    Raises:
        SourceError: there is nothing at one of them.
    """
    found: dict[str, Source] = {}
    for name, shown, place in chain.from_iterable(_pictures(one, out) for one in given):
        path = PurePosixPath(name)
        free = (path.with_stem(f"{path.stem}-{number}").as_posix() for number in count(2))
        own = name if name not in found else next(other for other in free if other not in found)
        found[own] = Source(own, shown, place)
    return list(found.values())


def pictures_below(folder: Path, out: Path | None) -> list[Path]:
    """The files with a picture's suffix, also in folders below but not in `out`, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and (out is None or out.resolve() not in path.resolve().parents)
    )


def text(name: str) -> str:
    """A file's name, which may be no text, as one that can be shown."""
    return name.encode("utf-8", "replace").decode()


def _pictures(given: str, out: Path | None) -> Iterator[tuple[str, str, Path | httpx.URL]]:
    """Name, as shown, and place."""
    if given.lower().startswith(("http://", "https://")):
        try:
            address = httpx.URL(given)
        except httpx.InvalidURL as error:
            raise SourceError(f"expected the address of a picture, got {given}: {error}") from None
        yield PurePosixPath(address.path).name or address.host, given, address
        return
    path = Path(given)
    if path.is_file():
        yield path.name, given, path
        return
    below = pictures_below(path, out)
    if not below:
        raise SourceError(f"expected a picture, a folder with pictures or an http(s) address, found none at {given}")
    for picture in below:
        yield picture.relative_to(path).as_posix(), str(picture), picture
