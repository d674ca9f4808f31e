"""``python -m weft`` and the command `weft`, from the moment on in which Ctrl-C can meet them."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """The command line; importing it takes longer than a finger."""
    try:
        from .cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return 130
    return command()


if __name__ == "__main__":
    sys.exit(main())
