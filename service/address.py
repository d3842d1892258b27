"""Where the service listens: bound early, told once somebody serves there."""

from __future__ import annotations

import socket

import structlog

from service.errors import StartupFailed
from service.settings import Settings, variable

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
    except OSError as error:
        for listener in bound:
            listener.close()
        raise not_listening(host, port, error.strerror) from None
    return bound


def not_listening(host: str, port: int, why: str | None) -> StartupFailed:
    """What is said of an address that cannot be had."""
    return StartupFailed(f"{variable('host')}, {variable('port')}: cannot listen on {host}:{port}: {why}")


def tell_address(address: tuple[str | int, ...], settings: Settings) -> None:
    """Log where it serves."""
    host, port = address[:2]
    scheme = "https" if settings.tls_certificate else "http"
    url = f"{scheme}://[{host}]:{port}" if ":" in str(host) else f"{scheme}://{host}:{port}"
    log.info("serving", url=url, docs=f"{url}/docs")
