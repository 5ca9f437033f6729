"""Teaches SAELens to read memes."""

__version__ = "0.1.0"
