"""`python -m service`: settings from the environment, then the server, or several; or one of the commands."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from socket import socket
from typing import Annotated, NoReturn

import typer

from service.address import bind, tell_address
from service.app import create_app
from service.commands.explain import HELP as EXPLAIN_HELP
from service.commands.explain import explain_pictures
from service.commands.predict import HELP as PREDICT_HELP
from service.commands.predict import predict_pictures
from service.errors import StartupFailed
from service.explain.process import COMMAND, ONE_THREAD
from service.logs import configure_logging
from service.security import Scope, add_key, explain_problem
from service.server import Server
from service.settings import Settings, table, variable
from service.sums import forget_worker
from service.supervisor import Helper, Supervisor
from service.team import Place, Team, shared_folder

# How long a worker may take to end once its requests have been answered, or cut off.
END_SECONDS = 5.0


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
        listeners = bind(settings.host, settings.port)
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
                on_serving=partial(tell_address, listeners[0].getsockname(), settings),
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
        listeners = listeners or bind(settings.host, settings.port)
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
    try:
        server.run(list(listeners))
    except SystemExit:
        # The log has said why; uvicorn's status is one of its own.
        sys.exit(1)
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
