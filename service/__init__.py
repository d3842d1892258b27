"""Bytes in, classes out: serve versioned SavedModels over HTTP."""

__version__ = "0.1.0"
