"""An app in, answers to whoever connects out, until it has drained: uvicorn, but for how it accepts and ends."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EADDRINUSE
from socket import socket

import structlog
import uvicorn
from fastapi import FastAPI

from service.address import keep_out, not_listening, tell_address
from service.http.connections import GuardedProtocol
from service.settings import Settings
from service.team import BEATS, SERVING, Team

# How long whoever began to connect may take, and to agree on a key.
HANDSHAKE_SECONDS, TLS_SECONDS = 0.1, 1.0

# Connections in one turn of the event loop.
ACCEPTED = 8

log = structlog.get_logger()


class Server(uvicorn.Server):
    """uvicorn, which on SIGTERM and SIGINT first stops being ready, then drains, then exits with status 0.

    Its own way of stopping ends in the signal again, which is no success to whoever started the process.
    """

    def __init__(self, app: FastAPI, settings: Settings, team: Team | None = None) -> None:
        self._app = app
        self._settings = settings
        self._team = team
        super().__init__(
            uvicorn.Config(
                app,
                root_path=settings.root_path,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
                http=GuardedProtocol,
                ws="none",
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on the first signal, at once on the second; of several workers each as its supervisor says."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        if self._team is not None:
            self._team.listen(self._app.state.classifier.rollout.look, self._stop)
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Say where it listens, once it does."""
        await super().startup(sockets)
        # uvloop's sign that whoever was bound there as well listened first.
        if any(None in server.sockets for server in self.servers):
            failed = not_listening(self._settings.host, self._settings.port, os.strerror(EADDRINUSE))
            log.error(failed.code, reason=str(failed))
            await self.lifespan.shutdown()
            sys.exit(1)
        await self._accept_several()
        if not self.started:
            return
        # What is there by now stays: looking through all of it for garbage would hold up answers, each time for 70 ms.
        gc.collect()
        gc.freeze()
        # Python waits for a quarter more than what the last found.
        gc.collect()
        self._app.state.classifier.metrics.workers.set(1)
        if self._team is None:
            tell_address(self.servers[0].sockets[0].getsockname(), self._settings)
        else:
            self._team.tell(SERVING)
            self._team.beat(self._settings.hang_seconds / BEATS)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop listening, but answer whoever had connected by then: what he asks may be on its way already."""
        loop = asyncio.get_running_loop()
        # What waits to be accepted is reset when the last of a socket's descriptors is closed.
        each = {listener.getsockname(): listener for server in self.servers for listener in server.sockets}
        last: list[socket] = []
        # Where no descriptor is left, what has been accepted is still answered.
        with suppress(OSError):
            last.extend(_again(listener) for listener in each.values())
        if self._team is None or self._team.all_end:
            for listener in last:
                keep_out(listener)
            await asyncio.sleep(HANDSHAKE_SECONDS)
        for listener in [*self.servers, *(sockets or ())]:
            listener.close()
        connected = [connection for listener in last for connection in _accept_last(listener)]
        if connected:
            accepted = [
                asyncio.ensure_future(loop.connect_accepted_socket(self._protocol, one, ssl=self.config.ssl))
                for one in connected
            ]
            await asyncio.wait(accepted, timeout=TLS_SECONDS)
        await super().shutdown(sockets)

    def _protocol(self) -> GuardedProtocol:
        return GuardedProtocol(self.config, self.server_state, self.lifespan.state)

    async def _accept_several(self) -> None:
        """Of each listening socket uvloop accepts one connection a turn, so that a busy loop lets clients wait long."""
        loop, config = asyncio.get_running_loop(), self.config
        for listener in [one for server in self.servers for one in server.sockets for _ in range(ACCEPTED - 1)]:
            self.servers.append(
                await loop.create_server(self._protocol, sock=_again(listener), ssl=config.ssl, backlog=config.backlog)
            )

    def _stop(self) -> None:
        if not self.started:
            # A model still loads in a thread; nobody waits for an answer yet.
            if self._team is not None:
                self._team.leave()
            sys.stdout.flush()
            os._exit(0)
        classifier = self._app.state.classifier
        if classifier.draining:
            # A terminal's Ctrl-C and systemd's stop reach a worker twice: it is its supervisor that is impatient.
            if self._team is None:
                self.should_exit = self.force_exit = True
            return
        log.info("draining", delay=self._settings.shutdown_delay, limit=self._settings.drain_seconds)
        classifier.drain(after=self._settings.shutdown_delay)
        asyncio.get_running_loop().call_later(self._settings.shutdown_delay, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


def _again(listener: socket) -> socket:
    """The same socket, to be closed for itself."""
    return socket(fileno=os.dup(listener.fileno()))


def _accept_last(listener: socket) -> list[socket]:
    """Close a socket, and give the connections that waited to be accepted."""
    listener.setblocking(False)
    connected = []
    try:
        while True:
            connected.append(listener.accept()[0])
    except OSError:
        # Mostly that nobody waits. Where nobody could be kept out, whoever connects in between is lost.
        listener.close()
    for connection in connected:
        connection.setblocking(False)
    return connected
