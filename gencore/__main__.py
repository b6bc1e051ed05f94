"""`python -m gencore`: the command line."""

from gencore.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
