"""`python -m seline` is the command `seline`."""

from seline.cli import main

if __name__ == "__main__":
    main()
