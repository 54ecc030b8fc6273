"""`python -m seline` is the command `seline`."""

from __future__ import annotations

from seline.cli import main

if __name__ == "__main__":
    main()
