from __future__ import annotations

import socket

import pytest

from service.address import bind
from service.errors import StartupFailed


def test_what_cannot_be_listened_on_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupFailed, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            bind("127.0.0.1", port)


def test_a_host_s_addresses_are_all_taken_and_nobody_can_connect_before_somebody_listens() -> None:
    for listener in bind("localhost", 0):
        with listener:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(listener.getsockname()[:2])
            listener.listen()
            socket.create_connection(listener.getsockname()[:2]).close()
