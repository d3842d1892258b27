"""Why a measurement could not be made."""

from __future__ import annotations


class BenchmarkFailed(Exception):
    """There is no figure; the text says what was expected and what came."""
