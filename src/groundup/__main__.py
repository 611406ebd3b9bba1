"""`python -m groundup`, the same as the command `groundup`."""

from groundup.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
