from __future__ import annotations

import httpx
import pytest

from service import errors
from service.http.errors import PROTOCOL_STATUS, STATUS, speaks_protocol


def leaves(kind: type[errors.ServiceError]) -> set[type[errors.ServiceError]]:
    return {leaf for sub in kind.__subclasses__() for leaf in leaves(sub)} or {kind}


def test_every_error_has_one_status() -> None:
    assert set(STATUS) == leaves(errors.ServiceError)


def test_codes_are_unique_and_stable_words() -> None:
    codes = [kind.code for kind in STATUS]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").islower() for code in codes)


@pytest.mark.parametrize("kind", sorted(STATUS, key=lambda kind: kind.code), ids=lambda kind: kind.code)
def test_the_status_tells_whose_fault_it_is(kind: type[errors.ServiceError]) -> None:
    if issubclass(kind, errors.ClientError):
        assert 400 <= STATUS[kind] < 500
    elif issubclass(kind, errors.Unavailable):
        assert STATUS[kind] in {429, 503, 504}
    else:
        assert STATUS[kind] == 500


def test_no_problem_repeats_more_than_a_line_of_what_came(live: httpx.Client) -> None:
    many = "a" * 20_000
    for answer in (
        live.get("/explain", params={"label": many}),
        live.get(f"/models/{many}"),
        live.get(f"/v2/models/{many}"),
        live.post("/explanations", json={"image_id": many}),
    ):
        assert 400 <= answer.status_code < 500
        assert len(answer.text) < 1500


def test_what_came_is_told_as_json(live: httpx.Client) -> None:
    detail = live.get("/explain", params={"model": "shapes"}).json()["detail"]
    assert detail == 'query.image_id: Field required, got {"model": "shapes"}'


def test_the_tree_in_the_docstring_is_the_code_s() -> None:
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in STATUS)


def test_the_other_protocols_statuses_are_grpc_s() -> None:
    statuses = {kind: PROTOCOL_STATUS.get(kind.code, status) for kind, status in STATUS.items()}
    assert set(PROTOCOL_STATUS) <= {kind.code for kind in STATUS}
    assert statuses[errors.Overloaded] == 429
    assert statuses[errors.UnknownVersion] == 404
    assert statuses[errors.DeadlineExceeded] == 504
    pictures = {kind: status for kind, status in statuses.items() if issubclass(kind, errors.ImageError)}
    assert set(pictures.values()) == {400}
    assert all(
        (status < 500) == issubclass(kind, errors.ClientError) for kind, status in statuses.items() if status != 429
    )


@pytest.mark.parametrize(
    ("path", "root", "speaks"),
    [
        ("/v1/models/x", "", True),
        ("/V1/models/x", "", True),
        ("/v2", "", True),
        ("/behind/v2/models", "/behind", True),
        ("/v2x", "", False),
        ("/v3/models", "", False),
        ("/models/v1/x", "", False),
    ],
)
def test_a_path_tells_whose_errors_a_client_reads(path: str, root: str, speaks: bool) -> None:
    assert speaks_protocol({"type": "http", "path": path, "root_path": root}) is speaks
