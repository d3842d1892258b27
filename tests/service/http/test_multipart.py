from __future__ import annotations

from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequest, TooManyImages
from service.http.multipart import Part, read_form

TYPE = "multipart/form-data; boundary=b"
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
names = st.text(
    st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters='"\\'), min_size=1, max_size=9
)


@given(files=st.lists(st.tuples(names, st.binary(max_size=60)), max_size=4))
def test_what_a_client_library_encodes_is_read_back(files: list[tuple[str, bytes]]) -> None:
    request = httpx.Request("POST", "http://x", files=[("file", file) for file in files] or {"": b""})
    parts = read_form(request.headers["content-type"], request.read(), 4)
    if files:
        assert parts == [Part("file", name, content) for name, content in files]


@given(body=st.binary(max_size=200), inside=st.booleans())
def test_no_body_raises_anything_but_invalid_request(body: bytes, inside: bool) -> None:
    with suppress(InvalidRequest, TooManyImages):
        read_form(TYPE, HEAD + body + b"\r\n--b--" if inside else body, 4)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        pytest.param(b"--b--", [], id="nothing"),
        pytest.param(HEAD + b"\r\n--b--\r\n", [Part("file", "a.png", b"")], id="empty-file"),
        pytest.param(b"hello\r\n" + HEAD + b"x\r\n--b--\r\nbye", [Part("file", "a.png", b"x")], id="around-it"),
        pytest.param(HEAD.replace(b"--b", b"--b \t") + b"x\r\n--b--", [Part("file", "a.png", b"x")], id="padding"),
        pytest.param(HEAD + b"\r\n\r\n--c\r\n--b--", [Part("file", "a.png", b"\r\n\r\n--c")], id="line-breaks-inside"),
        pytest.param(HEAD.lower() + b"x\r\n--b--", [Part("file", "a.png", b"x")], id="lower-case"),
        pytest.param(
            b"--b\r\nX: y\r\nContent-Disposition: form-data; name=file\r\n\r\nx\r\n--b--",
            [Part("file", None, b"x")],
            id="text-field-unquoted",
        ),
    ],
)
def test_forms_of_rfc_7578(body: bytes, parts: list[Part]) -> None:
    assert read_form(TYPE, body, 4) == parts


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        pytest.param("multipart/form-data", HEAD, "boundary", id="no-boundary"),
        pytest.param(TYPE, b"", "ends with its boundary", id="empty"),
        pytest.param(TYPE, HEAD + b"x", "ends with its boundary", id="cut-off"),
        pytest.param(TYPE, b"--b\r\nx\r\n--b--", "blank line", id="no-blank-line"),
        pytest.param(TYPE, b"--bx\r\n\r\nx\r\n--b--", "headers", id="longer-boundary"),
        pytest.param(TYPE, b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--", "name", id="no-disposition"),
        pytest.param(TYPE, b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", "name", id="no-name"),
    ],
)
def test_what_is_no_form_is_invalid(content_type: str, body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read_form(content_type, body, 4)


def test_a_part_too_many_is_refused_before_any_is_read() -> None:
    assert len(read_form(TYPE, (HEAD + b"x\r\n") * 4 + b"--b--", 4)) == 4
    with pytest.raises(TooManyImages, match="at most 4 pictures, got 5"):
        read_form(TYPE, (b"--b no headers at all\r\n") * 5 + b"--b--", 4)
