"""What every network is, wherever its layers come from."""

from __future__ import annotations

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Network:
    """A flat functional model and the layer that explains it."""

    model: keras.Model
    """uint8 [N, H, W, 3] to float32 logits [N, C], or [N, C + 1] with `none_logit`."""
    gradcam_layer: str
    """A layer with feature maps [N, h, w, c]."""
    base: tuple[str, ...] = ()
    """Names of the backbone's layers, from picture to feature maps; none where the network has no backbone."""
    none_logit: bool = False
    """Whether the last logit is of pictures that are none of the classes; the export makes `recognition` of it."""

    @property
    def classes(self) -> int:
        """C."""
        return int(self.model.output_shape[-1]) - self.none_logit
