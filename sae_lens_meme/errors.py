"""Every error that a user can cause. A message says what, where, which value, and what to do."""

from __future__ import annotations


class MemeError(Exception):
    """Base of all errors of this package; the command line prints its message as one line."""

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return " ".join(str(argument) for argument in self.args)


class BadImageError(MemeError, ValueError):
    """A file is not a picture that can be decoded safely."""


class BadTableError(MemeError, ValueError):
    """A table of labels or captions has a row, a column or a value that cannot be read."""


class ConfigError(MemeError, ValueError):
    """A configuration has an unknown key, a wrong value or a contradiction."""


class DataError(MemeError, ValueError):
    """Embeddings, labels or latents do not allow what was requested."""


class MissingHookError(MemeError, KeyError):
    """A hook name is not a hook of this model."""


class ModelError(MemeError, ValueError):
    """A model or a checkpoint cannot be loaded, or cannot be used in this way."""


class NonFiniteError(MemeError, ArithmeticError):
    """NaN or infinity in activations or in a training loss."""


class ShardError(MemeError, RuntimeError):
    """A worker of a cluster cannot compute a shard, or workers die."""


class StorageError(MemeError, OSError):
    """A result folder is locked, damaged, or holds a different result."""
