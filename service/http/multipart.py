"""A form's body in, its parts out: RFC 7578, for a body that is whole in memory and bounded.

Parsers for streams spend most of their time on handing over pieces; here one search for the boundary is enough.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from python_multipart.multipart import parse_options_header

from service.errors import InvalidRequest, TooManyImages

# Names come back in answers; longer ones are cut.
MAX_NAME = 255


# A file as browsers, curl and httpx send it: read at a tenth of what a parser of any header takes.
USUAL = re.compile(
    rb'Content-Disposition: form-data; name="([^"\\\r\n]+)"; filename="([^"\\\r\n]*)"(?:\r\nContent-Type: [^\r\n]*)?',
    re.IGNORECASE,
)


class Part(NamedTuple):
    """One field of a form."""

    field: str
    filename: str | None
    content: bytes


def read_form(content_type: str, body: bytes, max_parts: int) -> list[Part]:
    """Split a `multipart/form-data` body.

    Raises:
        InvalidRequest: there is no boundary, a part is not one, or the form does not end.
        TooManyImages: there are more than `max_parts`; none was read.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequest("expected a boundary in the content type multipart/form-data, got none")
    # RFC 2046, 5.1.1: the line break before a delimiter belongs to it; the first has none where there is no preamble.
    delimiter, delimited = b"\r\n--" + boundary, b"\r\n" + body
    if (found := delimited.count(delimiter) - 1) > max_parts:
        raise TooManyImages(
            f"expected at most {max_parts} pictures, got {found} parts of the form; parameters go in the query"
        )
    _, *parts = delimited.split(delimiter)
    if not parts or not parts[-1].startswith(b"--"):
        raise InvalidRequest("expected multipart/form-data that ends with its boundary, got a body that does not")
    return [_part(part) for part in parts[:-1]]


def _part(part: bytes) -> Part:
    padding, _, rest = part.partition(b"\r\n")
    head, blank, content = rest.partition(b"\r\n\r\n")
    if padding.strip(b" \t") or not blank:
        raise InvalidRequest("expected headers and a blank line in each part of multipart/form-data, got none")
    if usual := USUAL.fullmatch(head):
        return Part(_text(usual[1]), _text(usual[2]), content)
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-disposition":
            _, options = parse_options_header(value.strip())
            if b"name" in options:
                filename = options.get(b"filename")
                return Part(_text(options[b"name"]), None if filename is None else _text(filename), content)
    raise InvalidRequest("expected a name in each part of multipart/form-data, got a part without")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")[:MAX_NAME]
