"""What a setting or a request may choose by name: a module of that name does it, and a new one is that and a word here.

docs/extend.md shows how.
"""

from __future__ import annotations

from typing import Literal

EngineName = Literal["openvino", "tensorflow"]
"""`service/engines/<name>.py`, which has `open_engine`."""

HeatMethod = Literal["gradcam"]
"""`service/explain/<name>.py`, whose `explain` gives a heat map."""
Method = Literal["lime", HeatMethod]
"""Every `service/explain/<name>.py` that has an `explain`."""
