"""`python -m service`: settings from the environment, then uvicorn."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket

import structlog
import typer
import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.errors import StartupFailed
from service.logs import configure_logging
from service.settings import Settings, table

log = structlog.get_logger()


class Server(uvicorn.Server):
    """uvicorn, which on SIGTERM and SIGINT first stops being ready, then drains, then exits with status 0.

    Its own way of stopping ends in the signal again, which is no success to whoever started the process.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on the first signal, at once on the second."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Say where it listens, once it does."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            log.info("serving", url=url, docs=f"{url}/docs")

    def _stop(self) -> None:
        if not self.started:
            # A model still loads in a thread; nobody waits for an answer yet.
            sys.stdout.flush()
            os._exit(0)
        classifier = self._app.state.classifier
        if classifier.draining:
            self.should_exit = self.force_exit = True
            return
        log.info("draining", delay=self._settings.shutdown_delay, limit=self._settings.drain_seconds)
        classifier.drain(after=self._settings.shutdown_delay)
        asyncio.get_running_loop().call_later(self._settings.shutdown_delay, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


def _help() -> str:
    rows = [f"  {name}={default}\n      {description}" for name, default, description in table()]
    return "\n".join(
        (
            "Serve the models of a folder over HTTP.",
            "\n\b",
            "Examples:",
            "  python -m service",
            "  SICHTBAR_PORT=9000 SICHTBAR_MODELS=/srv/models python -m service",
            "\n\b",
            "Settings are environment variables, here with their defaults:",
            *rows,
        )
    )


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@cli.command(help=_help())
def serve() -> None:
    """Serve until SIGTERM."""
    try:
        settings = Settings.from_environ()
    except StartupFailed as failure:
        sys.exit(f"{failure.code}: {failure}")
    configure_logging(settings.log_level)
    server = Server(create_app(settings), settings)
    server.run()
    sys.stdout.flush()
    # Not sys.exit: that would wait for a thread that hangs in a model.
    os._exit(0)


if __name__ == "__main__":
    cli(prog_name="python -m service")
