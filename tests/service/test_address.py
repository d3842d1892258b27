from __future__ import annotations

import errno
import select
import socket

import pytest

from service.address import bind, keep_out
from service.errors import StartupFailed


def test_what_cannot_be_listened_on_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupFailed, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0..1", "a" * 70, "no.such.host.invalid"])
def test_a_host_that_is_none_is_said(host: str) -> None:
    with pytest.raises(StartupFailed, match=f"SICHTBAR_HOST, SICHTBAR_PORT: cannot listen on {host}:8000: ."):
        bind(host, 8000)


def test_a_host_s_addresses_are_all_taken_and_nobody_can_connect_before_somebody_listens() -> None:
    for listener in bind("localhost", 0):
        with listener:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(listener.getsockname()[:2])
            listener.listen()
            socket.create_connection(listener.getsockname()[:2]).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_is_kept_out_is_refused_and_who_had_connected_is_let_in(host: str) -> None:
    (listener,) = bind(host, 0)
    address = listener.getsockname()[:2]
    listener.listen()
    with socket.create_connection(address) as before, socket.socket(listener.family) as after:
        keep_out(listener)
        after.setblocking(False)
        with pytest.raises(BlockingIOError):
            after.connect(address)
        accepted, _ = listener.accept()
        with accepted:
            before.sendall(b"x" * 100_000)
            assert accepted.recv(100_000, socket.MSG_WAITALL) == b"x" * 100_000
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.close()
        # It asks again after a second.
        select.select([], [after], [], 30)
        assert after.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
