"""A call as steps: requests out, answers in, a result at the end. Nothing here sends anything."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.client.errors import UnexpectedAnswer, refusal
from service.client.pictures import File

T = TypeVar("T")

FIELD = "file"
# Of an answer that is no problem.
MOST_SHOWN = 200


@dataclass(frozen=True)
class Request:
    """One request, but for where to and by whom."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    """None is left out."""
    files: Sequence[File] = ()
    last_event: int | None = None
    """Of server-sent events: the last that came before the connection broke."""
    after: str | None = None
    """A job that must be over before this is sent."""
    once: bool = False
    """Whether any answer will do, also one that says to come again."""
    lasting: bool = False
    """Whether it may go on as a job, so that the service need not wait for its end."""

    @property
    def safe(self) -> bool:
        """Whether it changes nothing, so that it may be sent again where nobody knows what became of it."""
        return self.method == "GET"

    def content(self) -> dict[str, Any]:
        """As httpx takes it."""
        content: dict[str, Any] = {
            "params": {name: value for name, value in self.params.items() if value is not None},
            "headers": {} if self.last_event is None else {"last-event-id": str(self.last_event)},
        }
        if len(self.files) == 1 and self.files[0].name is None:
            content["content"] = self.files[0].data
            content["headers"]["content-type"] = "application/octet-stream"
        elif self.files:
            content["files"] = [
                (FIELD, (file.name or f"picture {place}", file.data, "application/octet-stream"))
                for place, file in enumerate(self.files, 1)
            ]
        return content


class _Problem(BaseModel):
    """Lenient: what a later service, or a proxy in between, makes of it."""

    code: str = "unknown"
    title: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Answer:
    """What came."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def code(self) -> str:
        """Of a problem."""
        try:
            return _Problem.model_validate_json(self.body).code
        except ValidationError:
            return _Problem().code

    def checked(self) -> Answer:
        """The answer itself, unless it is a problem.

        Raises:
            Refused: it is one.
            UnexpectedAnswer: it is a redirect, which this service sends for pages alone.
        """
        if self.status < 300:
            return self
        if self.status < 400:
            raise UnexpectedAnswer(
                f"expected an answer, got {self.status} to {self.headers.get('location')}: is the address right?"
            )
        phrase = HTTPStatus(self.status).phrase if self.status in list(HTTPStatus) else ""
        try:
            problem = _Problem.model_validate_json(self.body)
        except ValidationError:
            problem = _Problem(detail=f"{self.status} {phrase}: {self._shown()}")
        raise refusal(self.status)(
            self.status,
            problem.code,
            problem.title or phrase,
            problem.detail,
            request_id=self.headers.get("x-request-id"),
            retry_after=seconds_until(self.headers.get("retry-after")),
        )

    def read(self, kind: type[T] | TypeAdapter[T]) -> T:
        """The JSON of an answer.

        Raises:
            Refused: it is a problem.
            UnexpectedAnswer: it is something else.
        """
        adapter: TypeAdapter[T] = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
        try:
            return adapter.validate_json(self.checked().body)
        except ValidationError as invalid:
            raise UnexpectedAnswer(
                f"expected JSON as this version knows it, got {self._shown()}: {invalid.errors()[0]['msg']}"
            ) from None

    def array(self) -> NDArray[np.float32]:
        """The numbers of a `.npy`.

        Raises:
            Refused: it is a problem.
            UnexpectedAnswer: it is something else.
        """
        try:
            loaded: NDArray[np.float32] = np.load(io.BytesIO(self.checked().body), allow_pickle=False)
        except (ValueError, EOFError, OSError):
            raise UnexpectedAnswer(f"expected NumPy's format, got {self._shown()}") from None
        return loaded

    def image(self) -> Image.Image:
        """The picture.

        Raises:
            Refused: it is a problem.
            UnexpectedAnswer: it is something else.
        """
        return opened(self.checked().body)

    def _shown(self) -> str:
        return self.body[:MOST_SHOWN].decode("utf-8", "replace") if self.body else "nothing"


Call = Generator[Request, Answer, T]
"""Yields each request, is sent its answer, and returns the result."""


@dataclass(frozen=True)
class Result(Generic[T]):
    """What a call came to."""

    value: T


def advance(call: Call[T], answer: Answer | None) -> Request | Result[T]:
    """A call's next request, or its result; `answer`: what came of the last."""
    try:
        return next(call) if answer is None else call.send(answer)
    except StopIteration as end:
        return Result(end.value)


def opened(data: bytes) -> Image.Image:
    """A picture file as a Pillow image whose pixels are there.

    Raises:
        UnexpectedAnswer: it is none.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
    # Damaged files drive Pillow's parsers into every kind of exception.
    except Exception as cause:
        raise UnexpectedAnswer("expected a picture, got something else, or one that is damaged") from cause
    return image


def seconds_until(retry_after: str | None) -> float | None:
    """What `Retry-After` says, in seconds or as a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        then = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds())


def method_signature(described: Callable[..., Call[Any]]) -> inspect.Signature:
    """What `help` shows of a method that makes a call."""
    signature = inspect.signature(described)
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    result = str(signature.return_annotation).removeprefix("Call[").removesuffix("]")
    return signature.replace(parameters=[this, *signature.parameters.values()], return_annotation=result)
