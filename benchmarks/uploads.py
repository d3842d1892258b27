"""A picture in, the body of a request with it out, in the form that a server takes."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

BOUNDARY = "picture-9f2c1e7ab34d4d06"


@dataclass(frozen=True)
class Upload:
    """What is posted, over and over."""

    content_type: str
    body: bytes


def form(picture: bytes, field: str = "file") -> Upload:
    """`multipart/form-data`, as a browser or `curl -F` sends a file."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="picture.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    body = head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Upload(f"multipart/form-data; boundary={BOUNDARY}", body)


def inference_request(picture: bytes) -> Upload:
    """The Open Inference Protocol's JSON, with the picture in base64."""
    one = {
        "name": "picture",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(picture).decode()],
    }
    return Upload("application/json", json.dumps({"inputs": [one]}).encode())
