"""Which device the numbers are computed on, and how much memory the machine has."""

from __future__ import annotations

import math
import os

import torch

from sae_lens_meme.errors import ConfigError


def pick_device(name: str, mps: bool = True) -> str:
    """`auto` is CUDA, then MPS (if `mps`), then the CPU; any other name must be a device of this machine.

    Raises:
        ConfigError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if mps and torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); write auto or cpu") from None
    return name


def memory() -> float:
    """Bytes of memory of this machine; infinity where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return math.inf


def filled(rows: torch.Tensor, n: int) -> torch.Tensor:
    """At least n rows, the last one repeated: BLAS adds in a different order where there are fewer."""
    missing = n - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing > 0 else rows
