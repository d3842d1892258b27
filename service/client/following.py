"""A job's server-sent events: bytes in, what is known of the job out. Nothing here reads from anywhere."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from service.client.calls import place
from service.client.errors import UnexpectedAnswer
from service.client.exchange import Request
from service.http.schemas import ExplanationJob
from service.states import ACTIVE


class Following:
    """One job from now to its end. Where its stream breaks, the next goes on after the last event that came."""

    def __init__(self, job: ExplanationJob | str) -> None:
        self._place = place(job)
        self._last: int | None = None
        self._rest = b""
        self.over = False
        """Whether the last that came was the end."""

    def request(self) -> Request:
        """What asks for the events that are still to come."""
        self._rest = b""
        return Request("GET", f"{self._place}/events", last_event=self._last)

    def feed(self, piece: bytes) -> Iterator[ExplanationJob]:
        """What a piece of the stream completes.

        Raises:
            UnexpectedAnswer: an event's data is no job.
        """
        # A line ends with \n, before which a proxy may put \r; an event with an empty line.
        *events, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            fields = dict(line.partition(b": ")[::2] for line in event.split(b"\n") if not line.startswith(b":"))
            if b"data" not in fields:
                continue
            try:
                job = ExplanationJob.model_validate_json(fields[b"data"])
                number = int(fields[b"id"])
            except (ValidationError, KeyError, ValueError):
                raise UnexpectedAnswer(f"expected an explanation's progress, got {event[:200]!r}") from None
            self.over = job.state not in ACTIVE
            # A new stream begins with what is known now.
            if self._last is None or number > self._last:
                self._last = number
                yield job
