"""Ours beside what a user would otherwise write, in one run."""
