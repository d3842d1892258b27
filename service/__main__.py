"""`python -m service`: settings from the environment, then uvicorn; or one of the commands."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from socket import socket
from typing import Annotated, NoReturn

import structlog
import typer
import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.commands.explain import HELP as EXPLAIN_HELP
from service.commands.explain import explain_pictures
from service.commands.predict import HELP as PREDICT_HELP
from service.commands.predict import predict_pictures
from service.errors import StartupFailed
from service.explain.process import COMMAND, ONE_THREAD
from service.http.connections import GuardedProtocol
from service.logs import configure_logging
from service.metrics import forget_worker
from service.security import Scope, add_key, explain_problem
from service.settings import Settings, table, variable
from service.supervisor import Helper, Supervisor, listen
from service.team import BEATS, SERVING, Place, Team, shared_folder

# How long a worker may take to end once its requests have been answered, or cut off.
END_SECONDS = 5.0
# How long whoever connected last may take to agree on a key.
HANDSHAKE_SECONDS = 1.0

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
                host=settings.host,
                port=settings.port,
                root_path=settings.root_path,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
                http=GuardedProtocol,
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
            _tell_address(self.servers[0].sockets[0].getsockname(), self._settings)
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
        for listener in [*self.servers, *(sockets or ())]:
            listener.close()
        connected = [connection for listener in last for connection in _accept_last(listener)]
        if connected:
            accepted = [
                asyncio.ensure_future(loop.connect_accepted_socket(self._protocol, one, ssl=self.config.ssl))
                for one in connected
            ]
            await asyncio.wait(accepted, timeout=HANDSHAKE_SECONDS)
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
        # Mostly that nobody waits. Whoever connects in between is lost: nothing may come between.
        listener.close()
    for connection in connected:
        connection.setblocking(False)
    return connected


def _tell_address(address: tuple[str | int, ...], settings: Settings) -> None:
    host, port = address[:2]
    scheme = "https" if settings.tls_certificate else "http"
    url = f"{scheme}://[{host}]:{port}" if ":" in str(host) else f"{scheme}://{host}:{port}"
    log.info("serving", url=url, docs=f"{url}/docs")


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


@cli.callback(invoke_without_command=True, help=_help())
def serve(context: typer.Context) -> None:
    """Serve until SIGTERM, unless another command is given."""
    if context.invoked_subcommand is not None:
        return
    settings = _settings()
    configure_logging(settings.log_level)
    if settings.workers > 1:
        sys.exit(_supervise(settings))
    _serve(settings)


@cli.command("worker", hidden=True)
def serve_with_others(number: int, descriptors: str, folder: Path, again: bool = False) -> None:
    """Serve as one of several; `service.supervisor` says with what."""
    settings = _settings()
    configure_logging(settings.log_level, worker=number)
    settings = settings.model_copy(update={"threads": _threads(settings)})
    channel, *listeners = (socket(fileno=int(descriptor)) for descriptor in descriptors.split(","))
    _serve(settings, Team(folder, number, channel), listeners, again=again)


def _supervise(settings: Settings) -> int:
    """Run several workers; the exit status that is due."""
    try:
        listeners = listen(settings.host, settings.port)
        with shared_folder() as folder:
            supervisor = Supervisor(
                [sys.executable, "-m", "service", "worker"],
                listeners,
                folder,
                size=settings.workers,
                helper=Helper(
                    [*COMMAND, settings.engine, str(_threads(settings)), str(settings.explain_nice)], ONE_THREAD
                ),
                patience=settings.shutdown_delay + settings.drain_seconds + END_SECONDS,
                hang=settings.hang_seconds,
                on_serving=partial(_tell_address, listeners[0].getsockname(), settings),
                on_ended=partial(forget_worker, Place(folder).metrics),
            )
            return asyncio.run(supervisor.run())
    except (StartupFailed, OSError) as failure:
        sys.exit(f"{StartupFailed.code}: {failure}")


def _threads(settings: Settings) -> int:
    """Of one inference, where each worker would take all cores."""
    return settings.threads or max(1, len(os.sched_getaffinity(0)) // settings.workers)


def _serve(
    settings: Settings, team: Team | None = None, listeners: Sequence[socket] | None = None, *, again: bool = False
) -> NoReturn:
    try:
        app = create_app(settings, team)
        server = Server(app, settings, team)
        server.config.load()
    except StartupFailed as failure:
        sys.exit(f"{failure.code}: {failure}")
    except OSError as error:
        names = f"{variable('tls_certificate')} and {variable('tls_key')}"
        sys.exit(f"{StartupFailed.code}: {names}: expected a certificate and its key as PEM: {error}")
    if again:
        app.state.classifier.metrics.worker_restarts.inc()
    server.run(list(listeners) if listeners else None)
    if team is not None:
        team.leave()
    sys.stdout.flush()
    # Not sys.exit: that would wait for a thread that hangs in a model.
    os._exit(0)


cli.command("predict", help=PREDICT_HELP)(predict_pictures)
cli.command("explain", help=EXPLAIN_HELP)(explain_pictures)


@cli.command(
    "key",
    help="\n".join(
        (
            "Make an API key for a client: its digest goes into a file, the key is printed once, and kept nowhere.",
            "\n\b",
            "Examples:",
            "  python -m service key shop --predict --file keys.json",
            "  python -m service key desk --predict --explain --per-minute 600 --file keys.json",
            "  SICHTBAR_KEYS=keys.json python -m service",
        )
    ),
)
def make_key(
    name: Annotated[str, typer.Argument(help="What logs call the client.", show_default=False)],
    predict: Annotated[bool, typer.Option("--predict", help="It may classify pictures.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="It may ask for explanations, and look inside.")] = False,
    admin: Annotated[bool, typer.Option("--admin", help="It may load and unload versions.")] = False,
    file: Annotated[Path | None, typer.Option(help="File of keys; else SICHTBAR_KEYS.")] = None,
    per_minute: Annotated[float | None, typer.Option(min=0.001, help="Most requests a minute.")] = None,
) -> None:
    """Make a key."""
    path = file or _settings().keys
    if path is None:
        sys.exit(f"expected --file or {variable('keys')}")
    asked: list[tuple[Scope, bool]] = [("predict", predict), ("explain", explain), ("admin", admin)]
    scopes = frozenset(scope for scope, given in asked if given)
    if not scopes:
        sys.exit("expected at least one of --predict, --explain and --admin")
    try:
        shown = add_key(path, name, scopes, per_minute)
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {explain_problem(error)}")
    typer.echo(shown)
    typer.echo(f"shown this once; its digest is in {path}, a running service reads it at its next request", err=True)


def _settings() -> Settings:
    try:
        return Settings.from_environ()
    except StartupFailed as failure:
        sys.exit(f"{failure.code}: {failure}")


if __name__ == "__main__":
    cli(prog_name="python -m service")
