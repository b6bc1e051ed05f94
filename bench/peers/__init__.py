"""The peers, one module a family of works; each registers its builders in `gencore._bench.registry`.

A builder imports its library itself, so that a missing one is reported and the others run. It writes the work as that
library's best user would: several ways were tried on the reference machine and the fastest kept, which a comment says
where it is not obvious.
"""
