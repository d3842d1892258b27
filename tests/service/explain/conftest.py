"""What is explained here is computed as in the process that explains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices are multiplied on one thread: on a busy machine several wait for each other most of the time."""
    with threadpool_limits(1, user_api="blas"):
        yield
