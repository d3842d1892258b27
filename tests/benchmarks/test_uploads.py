"""Each peer gets the picture in the form that it takes."""

from __future__ import annotations

import base64
import json

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.datastructures import UploadFile

from benchmarks.uploads import form, inference_request
from tests.conftest import LiveServer

PICTURE = bytes(range(256)) * 4


@pytest.mark.parametrize("field", ["file", "images"])
def test_a_form_holds_the_picture(field: str) -> None:
    app = FastAPI()

    @app.post("/")
    async def same(request: Request) -> bool:
        async with request.form() as sent:
            part = sent[field]
            assert isinstance(part, UploadFile)
            return part.content_type == "image/jpeg" and await part.read() == PICTURE

    upload = form(PICTURE, field)
    with LiveServer(app) as server:
        answer = httpx.post(server.url, content=upload.body, headers={"Content-Type": upload.content_type})
    assert answer.json() is True


def test_an_inference_request_holds_the_picture() -> None:
    upload = inference_request(PICTURE)
    assert upload.content_type == "application/json"
    (sent,) = json.loads(upload.body)["inputs"]
    assert base64.b64decode(sent["data"][0]) == PICTURE
