"""What the clients do when a service refuses, drops, trickles or is not there: a real one, of a few lines."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx
import numpy as np
import pytest

from service.client import (
    Client,
    ConnectionLost,
    DeadlineExceeded,
    NoAnswer,
    NotSent,
    RateLimited,
    Refused,
    RequestError,
    Retries,
    ServiceFailed,
    SichtbarError,
    TimedOut,
    TryLater,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    connection,
    errors,
)
from service.http.errors import STATUS
from service.http.schemas import ExplanationJob, JobLinks, JobProgress
from tests.service.client.conftest import Connect
from tests.service.client.scripted import Scripted, answer, pieces, silence, trickle, unused_port

PROBLEM = "application/problem+json"
OVERLOADED = json.dumps({"title": "Busy", "status": 503, "detail": "too many", "code": "overloaded"}).encode()
MODELS = answer(200, b'{"models": [], "default": null}')
PREDICTED = answer(200, b'{"model": "shapes", "version": 1, "images": []}')
drop = pieces()


def busy(status: int = 503, retry_after: str = "0") -> object:
    return answer(status, OVERLOADED, content_type=PROBLEM, retry_after=retry_after)


@pytest.mark.parametrize("status", [429, 503])
def test_who_is_refused_for_the_moment_comes_back_when_told_to(connect: Connect, status: int) -> None:
    with Scripted(busy(status), busy(status), PREDICTED) as server:
        assert connect(server.url).predict(b"picture").model == "shapes"
    assert len(server.asked) == 3
    assert len({asked.body for asked in server.asked}) == 1


def test_what_the_explainer_died_of_is_not_sent_again(connect: Connect) -> None:
    died = OVERLOADED.replace(b"overloaded", b"explainer_died")
    with (
        Scripted(answer(503, died, content_type=PROBLEM, retry_after="0")) as server,
        pytest.raises(Unavailable, match="explainer_died"),
    ):
        connect(server.url).explain_numbers(b"picture")
    assert len(server.asked) == 1


@pytest.mark.parametrize(("timeout", "wait"), [(6, "3.000"), (600, "20.000")])
def test_an_explanation_becomes_a_job_before_its_answer_is_late(connect: Connect, timeout: float, wait: str) -> None:
    with Scripted(answer(400), answer(400)) as server:
        client = connect(server.url, timeout=timeout)
        for asked in ({"picture": b"picture"}, {"image_id": "0" * 64}):
            with pytest.raises(RequestError):
                client.explain_numbers(**asked)
    assert all(f"wait={wait}" in asked.line for asked in server.asked)


def test_a_view_of_a_file_s_bytes_is_one_picture(connect: Connect) -> None:
    with Scripted(PREDICTED) as server:
        connect(server.url).predict(memoryview(b"picture"))
    assert [asked.body for asked in server.asked] == [b"picture"]


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (503, Unavailable)])
def test_who_is_refused_too_often_is_told(connect: Connect, status: int, kind: type[TryLater]) -> None:
    with Scripted(busy(status), busy(status)) as server, pytest.raises(kind, match="overloaded: too many") as told:
        connect(server.url, retries=Retries(times=1)).models()
    assert len(server.asked) == 2
    assert (told.value.status, told.value.retry_after, told.value.title) == (status, 0.0, "Busy")


def test_who_shall_wait_longer_than_he_likes_is_told_at_once(connect: Connect) -> None:
    in_an_hour = format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True)
    for told in ("3600", in_an_hour):
        with Scripted(busy(retry_after=told)) as server, pytest.raises(Unavailable) as refused:
            connect(server.url, retries=Retries(longest=10)).models()
        assert len(server.asked) == 1
        assert refused.value.retry_after == pytest.approx(3600, abs=60)


def test_nobody_waits_beyond_the_deadline(connect: Connect) -> None:
    with Scripted(busy(retry_after="20")) as server, pytest.raises(Unavailable):
        connect(server.url, retries=Retries(deadline=10)).models()
    assert len(server.asked) == 1


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("retry_after", ["soon", "-1", "Wed, 21 Oct"])
def test_a_time_that_cannot_be_read_is_as_none(connect: Connect, retry_after: str) -> None:
    with Scripted(busy(retry_after=retry_after), MODELS) as server:
        assert connect(server.url).models().models == []


def test_what_the_service_gave_up_is_not_asked_again(connect: Connect) -> None:
    with Scripted(busy(504)) as server, pytest.raises(DeadlineExceeded):
        connect(server.url).models()
    assert len(server.asked) == 1


@pytest.mark.usefixtures("_at_once")
def test_what_changes_nothing_is_asked_again_where_the_connection_breaks(connect: Connect) -> None:
    half = pieces(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    with Scripted(drop, half, MODELS) as server:
        assert connect(server.url).models().models == []
    assert len(server.asked) == 3


@pytest.mark.usefixtures("_at_once")
def test_what_may_have_been_done_is_not_sent_again(connect: Connect) -> None:
    with Scripted(drop) as server, pytest.raises(ConnectionLost):
        connect(server.url).explain_later(b"picture")
    assert len(server.asked) == 1


@pytest.mark.usefixtures("_at_once")
def test_what_could_not_be_sent_is_sent_once_there_is_a_service(connect: Connect) -> None:
    port = unused_port()
    names: list[str] = []
    with ExitStack() as started:

        def name() -> str:
            # The service comes up between the first attempt and the second.
            names.append(f"attempt-{len(names)}")
            if len(names) == 2:
                started.enter_context(Scripted(PREDICTED, port=port))
            return names[-1]

        client = connect(f"http://127.0.0.1:{port}", request_id=name)
        assert client.predict(b"picture").model == "shapes"
    assert len(names) == 2


@pytest.mark.usefixtures("_at_once")
def test_where_nobody_answers_that_is_said(connect: Connect) -> None:
    with pytest.raises(Unreachable):
        connect(f"http://127.0.0.1:{unused_port()}").models()


def test_health_is_asked_once(connect: Connect) -> None:
    with Scripted(busy(), drop) as server:
        client = connect(server.url)
        assert not client.ready()
        with pytest.raises(NoAnswer):
            client.live()
    assert len(server.asked) == 2


@pytest.fixture
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "GRACE_SECONDS", 0.05)


@pytest.mark.usefixtures("_short_grace")
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(silence, id="silence"),
        pytest.param(trickle(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", b" "), id="trickle"),
    ],
)
@pytest.mark.parametrize("options", [{"timeout": 0.1}, {"retries": Retries(deadline=0.1)}], ids=["timeout", "deadline"])
def test_an_answer_that_takes_too_long_is_given_up(connect: Connect, step: object, options: dict[str, object]) -> None:
    with Scripted(step) as server, pytest.raises(TimedOut):
        connect(server.url, **options).models()
    assert len(server.asked) == 1


def test_the_service_is_told_how_long_is_waited_by_whom_and_for_what(connect: Connect) -> None:
    with Scripted(MODELS, MODELS) as server:
        connect(f"{server.url}/below/", timeout=7, key="secret", request_id=lambda: "order-17").models()
        connect(server.url, timeout=99_999).models()
    named, long = server.asked
    assert named.line == "GET /below/models HTTP/1.1"
    assert (named.headers["x-request-timeout"], named.headers["x-request-id"]) == ("7.000", "order-17")
    assert named.headers["authorization"] == "Bearer secret"
    assert named.headers["user-agent"].startswith("sichtbar-client/")
    assert (long.headers["x-request-timeout"], "authorization" in long.headers) == ("3600.000", False)


@pytest.mark.parametrize(
    ("step", "kind", "said"),
    [
        pytest.param(answer(502, b"<h1>Bad Gateway</h1>"), ServiceFailed, "unknown: 502 Bad Gateway: <h1>", id="proxy"),
        pytest.param(answer(418, b'{"code": "teapot", "detail": "short"}'), RequestError, "teapot: short", id="later"),
        pytest.param(answer(499, b'{"detail": [1]}'), RequestError, "unknown: 499", id="other-json"),
        pytest.param(answer(302, location="https://example.org/"), UnexpectedAnswer, "302 to https", id="redirect"),
        pytest.param(answer(200, b"<html>Welcome"), UnexpectedAnswer, "got <html>Welcome", id="page"),
        pytest.param(answer(200, b'{"models": 1}'), UnexpectedAnswer, "as this version knows it", id="form"),
        pytest.param(answer(200), UnexpectedAnswer, "got nothing", id="empty"),
        pytest.param(answer(200, b"no gzip", content_encoding="gzip"), UnexpectedAnswer, "", id="encoding"),
    ],
)
def test_what_no_service_of_this_kind_would_answer_is_said(
    connect: Connect, step: object, kind: type[SichtbarError], said: str
) -> None:
    with Scripted(step) as server, pytest.raises(kind) as told:
        connect(server.url).models()
    assert said in str(told.value)


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("it was unpickled",)


def test_numbers_are_never_unpickled(connect: Connect) -> None:
    written = io.BytesIO()
    np.save(written, np.array([_Trap()], dtype=object), allow_pickle=True)
    with Scripted(answer(200, written.getvalue()), answer(200, b"no numbers")) as server:
        client = connect(server.url)
        for _ in range(2):
            with pytest.raises(UnexpectedAnswer, match="NumPy"):
                client.filters("shapes", "conv_1")


def test_a_picture_that_is_none_is_said(connect: Connect) -> None:
    with Scripted(answer(200, b"\x89PNG\r\n\x1a\n")) as server, pytest.raises(UnexpectedAnswer, match="picture"):
        connect(server.url).image("0" * 64)


def test_a_report_is_written_nowhere_else(connect: Connect, tmp_path: object) -> None:
    from service.manifest import EXAMPLE

    manifest = {**EXAMPLE, "files": {**EXAMPLE["files"], "report/sub/evil.html": "0" * 64}}
    card = json.dumps({"state": "available", "engine": "openvino", "manifest": manifest}).encode()
    with Scripted(answer(200, b"page"), answer(200, card)) as server, pytest.raises(UnexpectedAnswer, match="evil"):
        connect(server.url).download_report("shapes", 1, tmp_path)
    assert not list(tmp_path.iterdir())


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(number: int, state: str, done: int | None = None) -> bytes:
    job = ExplanationJob(
        id="0" * 32,
        state=state,
        method="lime",
        image_id="1" * 64,
        model="shapes",
        version=1,
        created=datetime.now(timezone.utc),
        progress=None if done is None else JobProgress(done=done, total=100, r2=None),
        links=JobLinks(self="/explanations/0", events="/explanations/0/events"),
    )
    name = "progress" if state in ("queued", "running") else state
    return f"event: {name}\nid: {number}\ndata: {job.model_dump_json()}\n\n".encode()


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("status", [429, 503])
def test_where_a_stream_breaks_it_goes_on_after_the_last_event(connect: Connect, status: int) -> None:
    begun = event(1, "queued") + event(2, "running", 10)
    again = event(2, "running", 10) + b": still there\n\n" + event(3, "running", 20)
    with Scripted(
        # In pieces that end anywhere, also amid an event that then never comes.
        pieces(STREAM, begun[:30], begun[30:], event(3, "running", 20)[:50]),
        drop,
        busy(status),
        pieces(STREAM, again.replace(b"\n", b"\r\n"), event(4, "done", 100)),
    ) as server:
        seen = list(connect(server.url).follow("0" * 32))
    assert [(known.state, known.progress and known.progress.done) for known in seen] == [
        ("queued", None),
        ("running", 10),
        ("running", 20),
        ("done", 100),
    ]
    assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, "2", "2", "2"]


@pytest.mark.usefixtures("_at_once")
def test_a_stream_that_breaks_again_and_again_without_news_is_given_up(connect: Connect) -> None:
    with Scripted(*[pieces(STREAM, event(1, "running"))] * 3) as server, pytest.raises(ConnectionLost):
        list(connect(server.url, retries=Retries(times=2)).follow("0" * 32))
    assert len(server.asked) == 3


def test_events_of_something_else_are_said(connect: Connect) -> None:
    for strange in (b"data: {}\nid: 1\n\n", event(1, "running").replace(b"id: 1", b"id: x")):
        with Scripted(pieces(STREAM, strange)) as server, pytest.raises(UnexpectedAnswer, match="progress"):
            list(connect(server.url).follow("0" * 32))


@pytest.mark.usefixtures("_short_grace")
def test_a_deadline_also_ends_the_wait_for_a_job(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    later = json.loads(event(1, "queued").partition(b"data: ")[2])
    with (
        Scripted(answer(202, json.dumps(later).encode()), trickle(STREAM, b": still there\n\n")) as server,
        pytest.raises(TimedOut),
    ):
        connect(server.url, retries=Retries(deadline=0.5)).explain_numbers(b"picture")
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "kind",
    [kind for name in httpx.__all__ if isinstance(kind := getattr(httpx, name), type) and issubclass(kind, Exception)],
)
def test_every_exception_of_httpx_s_becomes_one_of_the_client_s(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, "why")
    own = errors.mapped(error)
    assert type(own) in (*NoAnswer.__subclasses__(), NotSent, UnexpectedAnswer) or kind in (
        httpx.HTTPError,
        httpx.RequestError,
        httpx.TransportError,
    )
    assert isinstance(own, SichtbarError)
    assert "why" in str(own)


def test_an_exception_that_is_not_httpx_s_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), errors.own_errors():
        raise ZeroDivisionError


@pytest.mark.parametrize("status", sorted(set(STATUS.values()) | {400, 405, 408, 431, 502}))
def test_every_status_of_the_service_has_a_class(status: int) -> None:
    kind = errors.refusal(status)
    assert issubclass(kind, Refused)
    assert kind not in (Refused, TryLater)
    if status < 500 and status != 429:
        assert issubclass(kind, RequestError)


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://127.0.0.1:port", ""])
def test_an_address_that_is_none_is_said(address: str) -> None:
    with pytest.raises(NotSent, match="server: expected an address such as http") as told:
        Client(address)
    assert repr(address) in str(told.value)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_in_which_nothing_can_be_answered_is_said(connect: Connect, timeout: float) -> None:
    with pytest.raises(NotSent, match=f"timeout: expected seconds, more than 0, got {timeout}"):
        connect(timeout=timeout)


@pytest.mark.parametrize("key", ["ü€", "secret\n123", "secret 123", "secret\x7f", "", " "])
def test_a_key_that_no_header_can_hold_is_said_and_not_shown(connect: Connect, key: str) -> None:
    with pytest.raises(NotSent, match="key: expected visible ASCII characters") as told:
        connect(key=key)
    assert not key.strip() or key not in str(told.value)
    assert "secret" not in str(told.value)


def test_white_space_around_a_key_is_none_of_it(connect: Connect) -> None:
    with Scripted(MODELS) as server:
        connect(server.url, key=" secret123\r\n").models()
    assert server.asked[0].headers["authorization"] == "Bearer secret123"


@pytest.mark.parametrize("address", ["http://127.0.0.1/lemon.png", "ftp://127.0.0.1/lemon.png"])
def test_a_picture_s_address_is_no_picture(connect: Connect, address: str) -> None:
    with pytest.raises(NotSent, match=f"expected a path, bytes, .* got an address: {address}"):
        connect().predict(address)
