"""Who may ask for what, and how often: keys from a file that may change while the service runs.

The file holds digests alone. Keys are random, 256 bits, so that a plain SHA-256 of one cannot be reversed.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import struct
from pathlib import Path
from time import monotonic
from typing import Literal, NamedTuple

import structlog
from pydantic import ConfigDict, Field, ValidationError, model_validator

from service.errors import RateLimited, StartupFailed
from service.inputs import Known
from service.problems import first_problem
from service.settings import variable

Scope = Literal["predict", "explain", "admin"]

HELD = struct.Struct("dd")

log = structlog.get_logger()


class Key(Known):
    """One client."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="What logs call it.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key, in hexadecimal digits.")
    scopes: frozenset[Scope] = Field(min_length=1, description="What it may ask for.")
    requests_per_minute: float | None = Field(
        default=None, gt=0, strict=True, allow_inf_nan=False, description="How often; null: as often as it likes."
    )


class KeyFile(Known):
    """What `SICHTBAR_KEYS` names, as JSON."""

    model_config = ConfigDict(frozen=True)

    keys: list[Key]

    @model_validator(mode="after")
    def _tells_them_apart(self) -> KeyFile:
        for what in ("name", "sha256"):
            values = [getattr(key, what) for key in self.keys]
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"expected each {what} once, found again: {', '.join(twice)}")
        return self


class _Stamp(NamedTuple):
    inode: int
    size: int
    changed: int


class Keys:
    """The keys of a file, read again when it changes; one that is not valid changes nothing."""

    def __init__(self, path: Path, allowances: Path | None = None) -> None:
        """Of several workers, all count a key's requests in the folder `allowances`."""
        self._path = path
        self._folder = allowances
        self._allowances: dict[str, _Allowance] = {}
        self._stamp = self._look()
        try:
            self._keys = self._read()
        except (OSError, ValueError) as error:
            raise StartupFailed(f"{variable('keys')}={path}: expected keys as JSON: {explain_problem(error)}") from None

    def find(self, shown: str) -> Key | None:
        """The key that a client shows, if it is one."""
        self._renew()
        digest = hashlib.sha256(shown.encode()).hexdigest()
        found = None
        for key in self._keys:
            # All are compared, whichever it is.
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def take(self, key: Key) -> None:
        """Count one request of the key.

        Raises:
            RateLimited: it has asked as often as it may; says when to ask again.
        """
        if key.requests_per_minute is None:
            return
        allowance = self._allowances.get(key.name)
        if allowance is None or allowance.per_minute != key.requests_per_minute:
            file = self._folder and self._folder / f"{key.sha256}-{key.requests_per_minute}"
            allowance = self._allowances[key.name] = _Allowance(key.requests_per_minute, file)
        if (wait := allowance.take()) > 0:
            raise RateLimited(f"expected at most {key.requests_per_minute:g} requests a minute", retry_after=wait)

    def _renew(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
        except (OSError, ValueError) as error:
            log.error("keys_not_read", path=str(self._path), reason=explain_problem(error))
            return
        log.info("keys_read", path=str(self._path), keys=[key.name for key in self._keys])

    def _look(self) -> _Stamp | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)

    def _read(self) -> list[Key]:
        return KeyFile.model_validate_json(self._path.read_bytes()).keys


class _Allowance:
    """A token bucket of a minute's requests, full at first; in a file, it is one for all processes that open that."""

    def __init__(self, per_minute: float, file: Path | None) -> None:
        self.per_minute = per_minute
        self._room = max(1.0, per_minute)
        # How many are left, and when they were counted by the machine's clock.
        self._held = (self._room, monotonic())
        self._file = file

    def take(self) -> float:
        """0, or the seconds until there is one to take."""
        if self._file is None:
            return self._take()
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Closing it releases the lock.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if counted := os.pread(descriptor, HELD.size, 0):
                self._held = HELD.unpack(counted)
            wait = self._take()
            os.pwrite(descriptor, HELD.pack(*self._held), 0)
        finally:
            os.close(descriptor)
        return wait

    def _take(self) -> float:
        left, counted = self._held
        now = monotonic()
        left = min(self._room, left + (now - counted) * self.per_minute / 60)
        wait = 0.0 if left >= 1 else (1 - left) * 60 / self.per_minute
        self._held = (left if wait else left - 1, now)
        return wait


def add_key(path: Path, name: str, scopes: frozenset[Scope], requests_per_minute: float | None) -> str:
    """Make a key, and write its digest into the file, which is made where there is none.

    Raises:
        ValueError: the file holds no keys, or one of that name; or the name cannot be one.
        OSError: it cannot be read or written.
    """
    held = KeyFile.model_validate_json(path.read_bytes()).keys if path.exists() else []
    shown = secrets.token_urlsafe(32)
    digest = hashlib.sha256(shown.encode()).hexdigest()
    key = Key(name=name, sha256=digest, scopes=scopes, requests_per_minute=requests_per_minute)
    written = KeyFile(keys=[*held, key])
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    # Whoever reads digests learns names and scopes, nobody else's business.
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(written.model_dump_json(indent=2) + "\n")
    beside.replace(path)
    return shown


def explain_problem(error: OSError | ValueError) -> str:
    """Why a file of keys cannot be read or written."""
    # What is there instead may be a key.
    if isinstance(error, ValidationError):
        return first_problem(error, show=False)
    return (isinstance(error, OSError) and error.strerror) or str(error)
