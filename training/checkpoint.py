"""Where a run stands after an epoch: written whole or not at all, so that a killed run goes on from there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training.errors import CacheError
from training.history import Epoch


@dataclass(frozen=True)
class Checkpoint:
    """A file with the weights that train, the optimizer's state and the epochs so far."""

    path: Path

    def save(
        self, layers: Sequence[keras.layers.Layer], optimizer: keras.optimizers.Optimizer, history: list[Epoch]
    ) -> None:
        """Replace what was there.

        Raises:
            CacheError: it cannot be written.
        """
        arrays = {f"weight_{i}": w.numpy() for i, w in enumerate(_weights(layers))}
        arrays |= {f"optimizer_{i}": v.numpy() for i, v in enumerate(optimizer.variables)}
        history_json = np.frombuffer(json.dumps([asdict(epoch) for epoch in history]).encode(), np.uint8)
        fresh = self.path.with_suffix(".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                np.savez(file, history=history_json, **arrays)
            fresh.replace(self.path)
        except OSError as error:
            raise CacheError(f"{self.path}: cannot be written: {error.strerror}") from error

    def history(self) -> list[Epoch]:
        """The epochs that are behind; none where there is no file."""
        if not self.path.exists():
            return []
        with np.load(self.path) as arrays:
            return [Epoch(**values) for values in json.loads(arrays["history"].tobytes())]

    def restore(self, layers: Sequence[keras.layers.Layer], optimizer: keras.optimizers.Optimizer | None) -> None:
        """Bring weights, and the state of an optimizer that is built, to where they were.

        Raises:
            CacheError: it is another network's.
        """
        with np.load(self.path) as arrays:
            weights = _weights(layers)
            found = [arrays[name].shape for name in arrays if name.startswith("weight_")]
            if [tuple(weight.shape) for weight in weights] != found:
                raise CacheError(
                    f"{self.path}: expected a checkpoint of this network, found another's; begin anew without --resume"
                )
            for i, weight in enumerate(weights):
                weight.assign(arrays[f"weight_{i}"])
            if optimizer is not None:
                for i, variable in enumerate(optimizer.variables):
                    variable.assign(arrays[f"optimizer_{i}"])

    def forget(self) -> None:
        """The run is over, or begins anew."""
        self.path.unlink(missing_ok=True)


def _weights(layers: Sequence[keras.layers.Layer]) -> list[Any]:
    return [weight for layer in layers for weight in layer.weights]
