"""Several workers behind one address: what they share, and what the death of one does to the others."""

from __future__ import annotations

import itertools
import os
import re
import select
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event

import httpx
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from service.security import add_key
from tests.conftest import PATIENCE, draw, encode
from tests.reliability.conftest import SHOWN, Models, keys_file
from tests.service.http.explaining import QUICK, SLOW, ended, metric, picture, until
from tests.service.http.test_openinference import pictures
from tests.service.test_main import Program

PICTURE = encode(draw("circle", 1))
CLIENTS = 8
NAMES = itertools.count()
LOST = 0


class Workers:
    """A service of two workers, asked one by one."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.program = models.program
        self.url = models.client.base_url
        self.wait_for_all()

    def wait_for_all(self) -> None:
        until(lambda: metric(self.models.client, "sichtbar_workers") == 2)

    def worker_of(self, request_id: str) -> int:
        """Which worker answered a request."""
        while True:
            for line in self.program.log:
                if line.get("request_id") == request_id:
                    return int(str(line["worker"]))
            self.program.wait_for("request")

    @contextmanager
    def client(self, worker: int) -> Iterator[httpx.Client]:
        """A client with one connection, which this worker holds."""
        while True:
            one = httpx.Limits(max_connections=1, keepalive_expiry=60)
            with httpx.Client(base_url=self.url, timeout=PATIENCE, headers=SHOWN, limits=one) as client:
                name = f"who-{next(NAMES)}"
                client.get("/health/live", headers={"x-request-id": name})
                if self.worker_of(name) == worker:
                    yield client
                    return

    def pid(self, worker: int) -> int:
        """The process that is this worker now."""
        return self._started("worker_started", worker=worker)[-1]

    def explainers(self) -> list[int]:
        """The processes that have explained so far."""
        return self._started("explainer_started")

    def folder(self) -> Path:
        """What the workers have in common while the service runs."""
        found = re.search(r"/\S+(?=/metrics/counter_0.db)", Path(f"/proc/{self.pid(0)}/maps").read_text())
        assert found
        return Path(found[0])

    def _started(self, event: str, **about: object) -> list[int]:
        name = f"now-{next(NAMES)}"
        self.models.client.get("/health/live", headers={"x-request-id": name})
        # All that came before has been read by then.
        self.worker_of(name)
        lines = [line for line in self.program.log if line["event"] == event and about.items() <= line.items()]
        return [int(str(line["pid"])) for line in lines]


@pytest.fixture(scope="module")
def workers(serve_models: Callable[..., Models], tmp_path_factory: pytest.TempPathFactory) -> Workers:
    """What most of these tests share."""
    folder = tmp_path_factory.mktemp("workers")
    return Workers(
        serve_models(
            SICHTBAR_WORKERS="2",
            SICHTBAR_KEYS=str(keys_file(folder)),
            SICHTBAR_STORE=str(folder / "store"),
            SICHTBAR_MAX_EXPLANATIONS="3",
        )
    )


@pytest.fixture
def both(workers: Workers) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of the first worker and of the second."""
    with workers.client(0) as first, workers.client(1) as second:
        yield first, second


Both = tuple[httpx.Client, httpx.Client]


def test_both_answer_and_either_tells_the_sum(both: Both) -> None:
    before = [metric(client, "sichtbar_predictions_total", model="shapes") for client in both]
    for client in (*both, both[0]):
        answer = client.post("/predict", params={"model": "shapes"}, files={"file": PICTURE})
        assert answer.json()["images"][0]["predictions"][0]["label"] == "circle"
    after = [metric(client, "sichtbar_predictions_total", model="shapes") for client in both]
    assert before[0] == before[1]
    assert after == [before[0] + 3] * 2
    for client in both:
        assert metric(client, "sichtbar_model_version_state", model="shapes", state="available") == 2
        assert metric(client, "sichtbar_stage_seconds_count", model="shapes", stage="inference") == after[0]
        assert metric(client, "sichtbar_queue_length", model="shapes") == 0


def test_values_that_a_starting_worker_has_yet_to_write_disturb_nobody(workers: Workers, both: Both) -> None:
    empty = workers.folder() / "metrics" / "counter_7.db"
    empty.touch()
    try:
        assert [client.get("/metrics").status_code for client in both] == [200, 200]
    finally:
        empty.unlink()


def test_processor_time_and_memory_are_those_of_both(workers: Workers, both: Both) -> None:
    resident = 0
    for number in range(2):
        pages = int(Path(f"/proc/{workers.pid(number)}/statm").read_text().split()[1])
        resident += pages * os.sysconf("SC_PAGE_SIZE")
    for client in both:
        assert metric(client, "process_resident_memory_bytes") == pytest.approx(resident, rel=0.2)
        assert metric(client, "process_open_fds") > 0


def test_both_have_the_same_weights_mapped(workers: Workers) -> None:
    mapped = []
    for number in range(2):
        lines = Path(f"/proc/{workers.pid(number)}/maps").read_text().splitlines()
        # Device and inode say which file it is, also once it has no name any more.
        mapped.append({tuple(line.split()[3:5]) for line in lines if "/weights/" in line})
    assert mapped[0]
    assert mapped[0] == mapped[1]


def test_a_picture_that_one_keeps_the_other_has(both: Both) -> None:
    image_id = both[0].post("/predict", files={"file": PICTURE}).json()["images"][0]["image_id"]
    assert both[1].get(f"/images/{image_id}").content == PICTURE


def test_a_job_of_one_is_followed_and_fetched_at_the_other(both: Both) -> None:
    asked, other = both
    data = picture(900)
    image_id = asked.post("/predict", files={"file": data}).json()["images"][0]["image_id"]
    place = asked.post("/explanations", params={"image_id": image_id, "samples": 2000}).headers["location"]
    with other.stream("GET", f"{place}/events") as stream:
        events = [line.partition(": ")[2] for line in stream.iter_lines() if line.startswith("event: ")]
    assert events[-1] == "done"
    job = ended(other, place)
    assert (job["state"], job["image_id"]) == ("done", image_id)
    result = other.get(f"{place}/result")
    assert result.headers["content-type"] == "image/png", result.text
    assert result.content == asked.get(f"{place}/result").content


def test_a_job_of_one_is_seen_and_cancelled_at_the_other(both: Both) -> None:
    asked, other = both
    place = asked.post("/explanations", params=SLOW, files={"file": picture(901)}).headers["location"]
    until(lambda: other.get(place).json()["links"].get("preview"))
    assert other.get(f"{place}/preview").headers["content-type"] == "image/png"
    assert other.delete(place).json()["state"] == "cancelled"
    assert asked.get(place).json()["state"] == "cancelled"


def test_what_both_are_asked_is_computed_once_and_by_one_process(workers: Workers, both: Both) -> None:
    before = metric(both[0], "sichtbar_explanations_total", outcome="done")
    data, question = picture(902), {"samples": 3000, "format": "json"}
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(client.post, "/explain", params=question, files={"file": data}) for client in both]
        answers = [answer.result() for answer in asked]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert metric(both[0], "sichtbar_explanations_total", outcome="done") == before + 1
    assert len(workers.explainers()) == 1


def test_as_many_explanations_wait_as_may_at_both_together(both: Both) -> None:
    places = []
    for client, seed in ((both[0], 0), (both[1], 1), (both[0], 2)):
        asked = client.post("/explanations", params={**SLOW, "seed": seed}, files={"file": picture(903)})
        assert asked.status_code == 202, asked.text
        places.append(asked.headers["location"])
    try:
        for client in both:
            until(lambda client=client: metric(client, "sichtbar_explanation_jobs") == 3)
        refused = [
            client.post("/explanations", params={**SLOW, "seed": 3}, files={"file": picture(903)}) for client in both
        ]
        assert [answer.status_code for answer in refused] == [503, 503]
        assert refused[0].json()["code"] == "overloaded"
    finally:
        for place in places:
            both[0].delete(place)
    assert both[1].post("/explain", params=QUICK, files={"file": picture(903)}).status_code == 200


def processor_ticks(pid: int) -> int:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


def counted_ticks(client: httpx.Client) -> int:
    return round(metric(client, "process_cpu_seconds_total") * os.sysconf("SC_CLK_TCK"))


def test_an_explainer_that_dies_is_started_anew_for_both(workers: Workers, both: Both) -> None:
    both[0].post("/explain", params=QUICK, files={"file": picture(904)})
    before = metric(both[0], "sichtbar_explainer_restarts_total")
    pid = workers.explainers()[-1]
    taken = sum(processor_ticks(each) for each in (pid, workers.pid(0), workers.pid(1)))
    counted = counted_ticks(both[0])
    assert counted >= taken
    place = both[1].post("/explanations", params=SLOW, files={"file": picture(905)}).headers["location"]
    until(lambda: both[1].get(place).json()["progress"])
    os.kill(pid, signal.SIGKILL)
    assert ended(both[0], place)["error"]["code"] == "explainer_died"
    assert min(map(counted_ticks, both)) >= counted
    for client, seed in zip(both, (906, 907), strict=True):
        assert client.post("/explain", params=QUICK, files={"file": picture(seed)}).status_code == 200
    assert metric(both[0], "sichtbar_explainer_restarts_total") == before + 1


def state(client: httpx.Client, model: str, version: int) -> str:
    versions = client.get(f"/models/{model}").json()["versions"]
    return str(next(one["state"] for one in versions if one["version"] == version))


def test_what_an_admin_orders_of_one_both_do_also_one_that_takes_its_place(workers: Workers, both: Both) -> None:
    workers.models.publish("ordered", 1)
    workers.models.publish("ordered", 2)
    for client in both:
        until(lambda client=client: state(client, "ordered", 2) == "available")
    assert both[0].post("/models/ordered/versions/2:unload").status_code == 200
    until(lambda: state(both[1], "ordered", 2) == "unloaded")
    until(lambda: both[1].post("/predict?model=ordered", files={"file": PICTURE}).json()["version"] == 1)
    assert both[1].put("/models/ordered/labels", json={"stable": 1}).status_code == 200
    until(lambda: both[0].get("/models/ordered").json()["labels"]["stable"] == 1)
    before = metric(both[0], "sichtbar_worker_restarts_total")
    os.kill(workers.pid(1), signal.SIGKILL)
    workers.program.wait_for("worker_started")
    until(lambda: metric(both[0], "sichtbar_worker_restarts_total") == before + 1)
    workers.wait_for_all()
    with workers.client(1) as restarted:
        assert state(restarted, "ordered", 2) == "unloaded"
        assert restarted.post("/models/ordered/versions/2:load").json()["state"] == "available"
    until(lambda: state(both[0], "ordered", 2) == "available")
    # The same files, unloaded and touched.
    both[0].post("/models/ordered/versions/2:unload")
    os.utime(workers.models.folder / "ordered" / "2" / "manifest.json")
    with workers.client(1) as restarted:
        for client in (both[0], restarted):
            until(lambda client=client: state(client, "ordered", 2) == "available")


def test_a_key_asks_both_together_no_oftener_than_it_may(workers: Workers, both: Both) -> None:
    file = Path(str(workers.models.program.settings["SICHTBAR_KEYS"]))
    shown = {"authorization": f"Bearer {add_key(file, 'slow', frozenset({'predict'}), 1)}"}
    statuses = [client.get("/models", headers=shown).status_code for client in both]
    assert statuses == [200, 429]


def closed(connection: HTTPConnection) -> bool:
    """Whether the server has closed it."""
    if connection.sock is None or not select.select([connection.sock], [], [], 0)[0]:
        return False
    with suppress(ConnectionError):
        return not connection.sock.recv(1, socket.MSG_PEEK)
    return True


@contextmanager
def load(url: httpx.URL, stop: Event) -> Iterator[Callable[[], list[int]]]:
    """Clients that ask until they may not connect any more, or are stopped; gives their statuses.

    Every other one keeps its connection. As HTTP clients do, each asks again where a connection that it has used
    before is closed; an answer that never came on a new one is `LOST`.
    """

    def ask(keep: bool) -> list[int]:
        statuses: list[int] = []
        connection, used = HTTPConnection(str(url.host), url.port, timeout=PATIENCE), 0
        while not stop.is_set():
            try:
                if connection.sock is None:
                    connection.connect()
                    used = 0
            except ConnectionRefusedError:
                return statuses
            if closed(connection):
                # Nothing has been sent yet.
                connection.close()
                continue
            try:
                headers = {"content-type": "image/png", "connection": "keep-alive" if keep else "close", **SHOWN}
                connection.request("POST", "/predict", PICTURE, headers)
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
                used += 1
            except (ConnectionError, HTTPException):
                if not used:
                    statuses.append(LOST)
                connection.close()
        connection.close()
        return statuses

    with ThreadPoolExecutor(CLIENTS) as threads:
        asked = [threads.submit(ask, number % 2 == 0) for number in range(CLIENTS)]
        try:
            yield lambda: [status for one in asked for status in one.result()]
        finally:
            stop.set()


def ask_by_triton(url: httpx.URL) -> list[int]:
    """The statuses of a client of Triton's that asks until it may not connect any more."""
    statuses: list[int] = []
    session = triton.InferenceServerClient(url.netloc.decode())
    while True:
        try:
            session.infer("shapes", pictures(PICTURE), headers=dict(SHOWN))
            statuses.append(200)
        except InferenceServerException as refused:
            statuses.append(int(refused.status()))
        except ConnectionRefusedError:
            session.close()
            return statuses
        # An idle connection was closed before the request reached it.
        except (OSError, HTTPException):
            pass


def answer_some(program: Program, worker: int | None = None, many: int = 100) -> None:
    """Until so many requests have been answered, by one worker."""
    answered = 0
    while answered < many:
        line = program.wait_for("request")
        answered += worker is None or line["worker"] == worker


@pytest.mark.parametrize("size", [1, 2])
def test_after_sigterm_under_load_no_answer_is_lost(serve_models: Callable[..., Models], size: int, times: int) -> None:
    for _ in range(times):
        models = serve_models(SICHTBAR_WORKERS=str(size))
        until(lambda models=models: metric(models.client, "sichtbar_workers") == size)
        with load(models.client.base_url, Event()) as statuses, ThreadPoolExecutor(1) as threads:
            by_triton = threads.submit(ask_by_triton, models.client.base_url)
            answer_some(models.program)
            assert models.program.stop() == 0
            got = statuses()
        assert set(got) == set(by_triton.result()) == {200}
        logged = [line["status"] for line in models.program.rest() if line.get("path") == "/predict"]
        assert logged == got
        assert not [line for line in models.program.log if line["level"] == "error"]


@pytest.mark.parametrize("size", [1, 2])
def test_after_sigterm_who_had_not_been_accepted_yet_is_answered(
    serve_models: Callable[..., Models], size: int
) -> None:
    models = serve_models(SICHTBAR_WORKERS=str(size))
    until(lambda: metric(models.client, "sichtbar_workers") == size)
    processes = [models.program.process.pid]
    if size > 1:
        workers = Workers(models)
        processes = [workers.pid(number) for number in range(size)]
    url = models.client.base_url
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    waiting = [HTTPConnection(str(url.host), url.port, timeout=PATIENCE) for _ in range(60)]
    for connection in waiting:
        connection.request("POST", "/predict", PICTURE, {"content-type": "image/png"})
    models.program.process.send_signal(signal.SIGTERM)
    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    statuses = []
    for connection in waiting:
        statuses.append(connection.getresponse().status)
        connection.close()
    assert set(statuses) == {200}
    assert models.program.process.wait(60) == 0


def test_a_worker_that_is_killed_under_load_takes_only_what_it_had_in_hand(
    serve_models: Callable[..., Models], times: int
) -> None:
    for _ in range(times):
        models = serve_models(SICHTBAR_WORKERS="2")
        workers, program = Workers(models), models.program
        stop = Event()
        with load(models.client.base_url, stop) as statuses:
            answer_some(program, worker=1)
            counted = metric(models.client, "sichtbar_http_requests_total", route="/predict")
            os.kill(workers.pid(1), signal.SIGKILL)
            died = program.wait_for("worker_died")
            assert (died["worker"], died["status"]) == (1, -signal.SIGKILL)
            assert metric(models.client, "sichtbar_http_requests_total", route="/predict") >= counted
            assert models.client.get("/health/ready").status_code == 200
            answer_some(program, worker=0)
            answer_some(program, worker=1)
            stop.set()
            got = statuses()
        assert set(got) <= {200, LOST}
        assert got.count(LOST) <= CLIENTS
        counted = metric(models.client, "sichtbar_http_requests_total", route="/predict", status="200")
        # An answer is counted once it has been sent.
        assert counted >= got.count(200) - CLIENTS
        assert metric(models.client, "sichtbar_worker_restarts_total") == 1
        assert metric(models.client, "sichtbar_workers") == 2
        assert program.stop() == 0


def test_a_worker_that_hangs_is_replaced_and_meanwhile_the_other_answers(serve_models: Callable[..., Models]) -> None:
    models = serve_models(SICHTBAR_WORKERS="2", SICHTBAR_HANG_SECONDS="8")
    workers = Workers(models)
    with workers.client(0) as other:
        os.kill(workers.pid(1), signal.SIGSTOP)
        hung = models.program.wait_for("worker_hangs")
        assert (hung["worker"], hung["seconds"]) == (1, 8)
        for client in (other, httpx):
            answer = client.post(workers.url.join("/predict"), files={"file": PICTURE}, headers=SHOWN)
            assert answer.status_code == 200
        # It is stopped: nothing but this ends it.
        assert models.program.wait_for("worker_died")["status"] == -signal.SIGKILL
        until(lambda: metric(other, "sichtbar_workers") == 2)
        assert metric(other, "sichtbar_worker_restarts_total") == 1
    workers.wait_for_all()
    with workers.client(1) as replaced:
        assert replaced.post("/predict", files={"file": PICTURE}).status_code == 200


def test_what_keeps_workers_from_starting_is_said_once(tmp_path: Path) -> None:
    program = Program(SICHTBAR_MODELS=str(tmp_path), SICHTBAR_WORKERS="2")
    alone = Program(SICHTBAR_MODELS=str(tmp_path))
    assert program.process.wait(60) == alone.process.wait(60) != 0
    for one in (program, alone):
        failed = [line for line in one.rest() if line["event"] == "startup_failed"]
        assert len(failed) == 1
        one.kill()


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_nothing_outlives_a_supervisor_that_is_killed(serve_models: Callable[..., Models]) -> None:
    # What another test explained would be kept, and no process started.
    models = serve_models(SICHTBAR_WORKERS="2", SICHTBAR_STORE="none")
    workers = Workers(models)
    assert models.client.post("/explain", params=QUICK, files={"file": PICTURE}).status_code == 200
    processes = [workers.pid(0), workers.pid(1), *workers.explainers()]
    assert len(processes) == 3
    folder = workers.folder()
    models.program.process.kill()
    for pid in processes:
        until(lambda pid=pid: has_ended(pid))
    assert not folder.exists()


def test_a_second_signal_ends_all_at_once(serve_models: Callable[..., Models]) -> None:
    models = serve_models(SICHTBAR_WORKERS="2", SICHTBAR_DRAIN_SECONDS="600", SICHTBAR_TIMEOUT="600")
    workers, url = Workers(models), models.client.base_url
    processes = [workers.pid(0), workers.pid(1)]
    connection = HTTPConnection(str(url.host), url.port, timeout=PATIENCE)
    connection.putrequest("POST", "/predict")
    connection.putheader("content-type", "image/png")
    connection.putheader("content-length", "900")
    connection.endheaders(b"abc")
    models.client.get("/health/live")
    models.program.process.send_signal(signal.SIGTERM)
    models.program.wait_for("draining")
    models.program.process.send_signal(signal.SIGTERM)
    assert models.program.process.wait(30) == 0
    connection.close()
    assert all(has_ended(pid) for pid in processes)
