"""Settings that all tests share."""

from hypothesis import settings

# The same examples in every run: a failure on one machine is a failure on all.
settings.register_profile("gencore", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("gencore")
