"""Where the service listens: bound early, told once somebody serves there."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from contextlib import suppress

import structlog

from service.errors import StartupFailed
from service.settings import Settings, variable

SO_ATTACH_FILTER = 26
# Load the byte of the flags; where SYN is among them take nothing, else all.
NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))

log = structlog.get_logger()


def bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of a host; nobody can connect until somebody listens there.

    Raises:
        StartupFailed: one cannot be had.
    """
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            bound.append(socket.socket(family, socket.SOCK_STREAM))
            bound[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound[-1].bind(address)
    # Of a name that no host can have, it is the latter.
    except (OSError, UnicodeError) as error:
        for listener in bound:
            listener.close()
        raise not_listening(host, port, getattr(error, "strerror", None) or str(error)) from None
    return bound


def not_listening(host: str, port: int, why: str | None) -> StartupFailed:
    """What is said of an address that cannot be had."""
    return StartupFailed(f"{variable('host')}, {variable('port')}: cannot listen on {host}:{port}: {why}")


def keep_out(listener: socket.socket) -> None:
    """Let nobody begin to connect any more; whoever has begun is still let in. On Linux; elsewhere nothing happens.

    Closing alone resets whoever connects after the last look at who waits. A SYN that is not heard is sent again after
    a second, and refused by then. The filter, in classic BPF, sees TCP segments from their header on (socket(7)).
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in NO_SYN))
    with suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(NO_SYN), ctypes.addressof(code))
        )


def tell_address(address: tuple[str | int, ...], settings: Settings) -> None:
    """Log where it serves."""
    host, port = address[:2]
    scheme = "https" if settings.tls_certificate else "http"
    url = f"{scheme}://[{host}]:{port}" if ":" in str(host) else f"{scheme}://{host}:{port}"
    log.info("serving", url=url, docs=f"{url}/docs")
