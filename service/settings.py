"""The environment in, one frozen object out."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.choices import EngineName
from service.errors import StartupFailed
from service.inputs import NUMBER, WHOLE
from service.policy import checked
from service.problems import described

PREFIX = "SICHTBAR_"
# Where tests and training scripts find pictures and weights, and what its clients show it; not the service's to read.
OTHERS = {"SICHTBAR_DATA", "SICHTBAR_WEIGHTS", "SICHTBAR_API_KEY"}
# As browsers name them: nothing follows the port.
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#\s]+")


Positive = Annotated[int, Field(gt=0), WHOLE]
# How long something is kept, ten years at most: dates end, and so do the expiries that Redis takes.
Keep = Annotated[int, Field(gt=0, le=315_360_000), WHOLE]
# A setting says how few: a least value here would stand instead of its own.
Seconds = Annotated[float, Field(le=3600, allow_inf_nan=False), NUMBER]


def _below(path: str) -> str:
    if not re.fullmatch(r"(/[\w.~-]+)*", path, re.ASCII):
        raise ValueError("expected a path that begins with / and does not end with one")
    return path


class Settings(BaseSettings):
    """Every setting is a variable `SICHTBAR_<NAME>`; an unknown one is an error."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="Address to listen on; `0.0.0.0` for every interface.")
    port: Annotated[int, WHOLE] = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 lets the system choose one."
    )
    workers: Annotated[int, WHOLE] = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that serve; with more than one, each has the models, and queues and limits of its own.",
    )
    root_path: Annotated[str, AfterValidator(_below)] = Field(
        default="",
        description="Path below which a proxy serves this, such as `/sichtbar`; the proxy removes it from requests, "
        "links begin with it.",
    )
    models: Path = Field(default=Path("models"), description="Folder of `<model>/<version>/` folders.")
    default_model: str | None = Field(
        default=None,
        description="Model that answers when a request names none; unset, the only one loaded.",
    )
    versions: Annotated[str, AfterValidator(checked)] = Field(
        default="all",
        description="Versions that are loaded: `all`, `latest:N` or numbers such as `1,3`; then a model's own rule, "
        "as in `latest:1 fruit_cnn=all`. What a label names is always loaded.",
    )
    watch: Literal["auto", "poll", "off"] = Field(
        default="auto",
        description="How changes below the folder of models are noticed: `auto`: the system tells, and it is looked "
        "at as well; `poll`: it is looked at; `off`: not at all.",
    )
    watch_seconds: Seconds = Field(
        default=5.0, gt=0, description="Seconds between two looks at the folder of models; nothing is read by a look."
    )
    settle_seconds: Seconds = Field(
        default=1.0,
        ge=0,
        description="Seconds that files of a version must stay as they are before they are read, or it is unloaded.",
    )
    engine: Literal["auto", EngineName] = Field(
        default="auto",
        description="What runs the networks; `auto`: TensorFlow where it sees a GPU, else OpenVINO.",
    )
    threads: Annotated[int, WHOLE] = Field(
        default=0,
        ge=0,
        description="Threads of one inference; 0: one for a small network, else as the engine chooses; workers share "
        "the cores.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="What OpenVINO computes predictions in; `bfloat16` takes about half the time where a processor has "
        "it; probabilities may differ by 0.01 or so, from processor to processor too.",
    )
    decode_threads: Positive = Field(default=2, description="Threads that decode pictures.")
    max_body_bytes: Positive = Field(default=32 * 2**20, description="Largest body of a request, in bytes.")
    max_total_bytes: Positive = Field(
        default=256 * 2**20,
        description="Bytes of bodies that all requests under way may hold, as many of kept pictures, and as many that "
        "explanations, queued or running, hold; one more gets 503.",
    )
    # Pillow itself refuses more than the upper bound.
    max_pixels: Annotated[int, WHOLE] = Field(
        default=50_000_000, ge=1, le=178_956_970, description="Most pixels of a picture (width x height)."
    )
    max_images: Positive = Field(default=32, description="Most pictures in one request.")
    max_batch: Positive = Field(default=32, description="Most pictures in one inference.")
    max_queue: Positive = Field(
        default=256,
        description="Pictures that may wait, for decoding and for each model; one more gets 503, and so do those after "
        "it that would not soon have their turn, until fewer come.",
    )
    cache_bytes: Annotated[int, WHOLE] = Field(
        default=0,
        ge=0,
        description="Bytes of answers that each process keeps in memory, the least recently used removed first, so "
        "that a picture that comes again costs neither decoding nor inference; 0 keeps none.",
    )
    timeout: Seconds = Field(
        default=10.0,
        gt=0,
        description="Seconds a body may take to arrive (later gets 408), and pictures to be classified (504).",
    )
    drain_seconds: Seconds = Field(
        default=20.0, gt=0, description="Seconds that accepted requests get to finish after SIGTERM."
    )
    hang_seconds: Seconds = Field(
        default=60.0,
        ge=1,
        description="Seconds, at least 1, for which one of several workers may hang, answering nobody; then it is "
        "replaced.",
    )
    shutdown_delay: Seconds = Field(
        default=0.0,
        ge=0,
        description="Seconds to go on serving after SIGTERM, not ready, until balancers have noticed.",
    )
    store: str | None = Field(
        default=None,
        description="Where pictures are kept by id, and explanations: a folder, `redis://...` for several hosts, or "
        "`none`; unset, `sichtbar-<user id>` in the system's temporary folder.",
    )
    store_max_bytes: Positive = Field(
        default=2**30, description="Bytes of pictures kept in the folder, the least recently used removed first."
    )
    store_max_seconds: Keep = Field(default=86_400, description="Seconds that a picture is kept after its last use.")
    max_explanations: Positive = Field(
        default=16, description="Explanations that may be queued or running; one more gets 503."
    )
    explain_wait: Seconds = Field(
        default=20.0,
        ge=0,
        description="Seconds that `/explain` waits for an explanation, unless asked otherwise; then it answers 202.",
    )
    explain_timeout: Seconds = Field(
        default=600.0, gt=0, description="Seconds that one explanation may take, from its turn on."
    )
    explain_keep_seconds: Keep = Field(
        default=86_400, description="Seconds that explanations, and what is known of their jobs, are kept."
    )
    explain_max_bytes: Positive = Field(
        default=256 * 2**20,
        description="Bytes of explanations and drawings kept in the folder, the least recently used removed first.",
    )
    explain_preload: bool = Field(
        default=True,
        description="Whether models are loaded for explanations once the service is ready, not when asked.",
    )
    explain_nice: Annotated[int, WHOLE] = Field(
        default=10, ge=0, le=19, description="Niceness of the process that explains; predictions go before it."
    )
    keys: Path | None = Field(
        default=None,
        description="File of API keys, made by `python -m service key`, read again when it changes; unset, every call "
        "is open to all, but for admin calls, which are closed.",
    )
    open_metrics: bool = Field(
        default=True, description="Whether `/health` and `/metrics` need no key, where there are keys."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose pages may call the service from a browser, with commas between; `*` for all.",
    )
    tls_certificate: Path | None = Field(default=None, description="Certificate chain as PEM: speak HTTPS.")
    tls_key: Path | None = Field(default=None, description="The certificate's private key as PEM.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged; at `info` each request is a line."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        origins = tuple(origin for part in given.split(",") if (origin := part.strip()))
        if wrong := [origin for origin in origins if not ORIGIN.fullmatch(origin)]:
            raise ValueError(f"expected `*`, or origins such as https://example.org, got {', '.join(wrong)}")
        return origins

    @model_validator(mode="after")
    def _has_both_of_tls(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError(f"expected {variable('tls_certificate')} and {variable('tls_key')} together, got one")
        return self

    @property
    def patience(self) -> float:
        """Seconds that a picture may have to wait; what would wait longer is refused."""
        return self.timeout / 2

    @classmethod
    def from_environ(cls) -> Settings:
        """Read the environment.

        Raises:
            StartupFailed: a variable is unknown, or its value is not what the setting takes.
        """
        known = {variable(name) for name in cls.model_fields}
        unknown = {
            name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known | OTHERS
        }
        if unknown:
            raise StartupFailed(
                f"unknown settings: {', '.join(sorted(unknown))}; expected any of {', '.join(sorted(known))}"
            )
        try:
            return cls()
        except ValidationError as invalid:
            problems = (
                described(
                    {**problem, "loc": [f"{variable(str(name))}={problem['input']!r}" for name in problem["loc"][:1]]},
                    show=False,
                )
                for problem in invalid.errors()
            )
            raise StartupFailed("; ".join(problems)) from None


def variable(name: str) -> str:
    """The environment variable that holds the setting `name`."""
    return PREFIX + name.upper()


def table() -> list[tuple[str, str, str]]:
    """Variable, default and description of each setting, for `--help` and the README."""
    return [
        (variable(name), _default(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _default(value: object) -> str:
    return "" if value in (None, ()) else str(value)
