"""What admins have ordered: of one process in memory, of several workers in a folder that all look at."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex
from typing import Literal

from pydantic import BaseModel, ConfigDict

from service.watch import Files, Key, fingerprint

What = Literal["load", "unload"]
NEW = ".new"


class Order(BaseModel):
    """An order about one version."""

    model_config = ConfigDict(frozen=True)

    id: str
    """Of another order of the same kind it is another."""
    what: What
    files: str
    """What its files were: see `fingerprint`."""

    def holds(self, files: Files | None) -> bool:
        """Whether it is still to be followed: what was unloaded is so until its files change."""
        return self.what == "load" or self.files == fingerprint(files)


class Orders:
    """The last order about each version, for as long as the service runs."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._given: dict[Key, Order] = {}

    def give(self, key: Key, what: What, files: Files | None) -> None:
        """Order something about a version whose files are these."""
        self._given[key] = order = Order(id=token_hex(8), what=what, files=fingerprint(files))
        if self._folder is not None:
            new = self._folder / f"{order.id}{NEW}"
            new.write_text(order.model_dump_json())
            new.replace(self._place(self._folder, key))

    def forget(self, key: Key) -> None:
        """The version is gone."""
        self._given.pop(key, None)
        if self._folder is not None:
            self._place(self._folder, key).unlink(missing_ok=True)

    def of(self, key: Key) -> Order | None:
        """The last order about a version, whichever worker was asked."""
        if self._folder is None:
            return self._given.get(key)
        try:
            return Order.model_validate_json(self._place(self._folder, key).read_bytes())
        except FileNotFoundError:
            return None

    def _place(self, folder: Path, key: Key) -> Path:
        # No model's name has a colon.
        return folder / f"{key[0]}:{key[1]}"
