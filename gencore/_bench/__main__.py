"""`python -m gencore._bench`: what `gencore bench` runs, and the processes that it starts."""

from gencore._bench import main

if __name__ == "__main__":
    raise SystemExit(main())
