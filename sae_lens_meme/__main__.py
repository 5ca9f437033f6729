"""Where the command starts: the other imports take seconds, and Ctrl-C during them is not an error either."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `sae-lens-meme` and of `python -m sae_lens_meme`."""
    try:
        from sae_lens_meme.cli import main as command
    except KeyboardInterrupt:
        print("\ninterrupted before anything was done", file=sys.stderr)
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
