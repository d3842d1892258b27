"""What can become of a version on disk, and of an explanation that comes later."""

from __future__ import annotations

from typing import Literal

State = Literal["loading", "available", "unloading", "unloaded", "incomplete", "failed"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]

ACTIVE: tuple[JobState, ...] = ("queued", "running")
"""Something will still become of such a job."""
