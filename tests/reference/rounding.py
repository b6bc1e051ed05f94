"""How far float32 arithmetic may stray: the bounds that tolerances are made of."""

import numpy as np

U = 2.0**-24  # half the spacing of float32 at 1: the relative error of one rounding


def chained(n):
    """Error of n roundings in a chain, in units of U.

    At most n; and for roundings that are as often up as down, at most 6 sqrt(n) but for a chance of 2
    exp(-18) (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019, with
    lambda = 6).
    """
    return np.minimum(n, 6 * np.sqrt(n))


def product_error(a, b, bias=None):
    """Bound on a float32 a @ b (+ bias), whatever the order of its sums."""
    magnitude = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    if bias is not None:
        magnitude = magnitude + np.abs(bias)
    return chained(np.shape(a)[1] + 1) * U * magnitude


class Rounded:
    """A float64 value, and a bound on the error of the float32 number that stands for it.

    Arithmetic on them is that of the formula in float64; the bound grows by what an error in each operand can do, and
    by one rounding of the result. A kernel that fuses operations rounds less often, so the bound covers it, too.
    """

    TINY = 2.0**-149  # the spacing where float32 underflows
    __array_ufunc__ = None  # array * Rounded is ours

    def __init__(self, value, error=0.0):
        self.value, self.error = np.asarray(value, np.float64), np.asarray(error, np.float64)

    @classmethod
    def of(cls, x):
        """A number that is rounded to float32 once, or float32 numbers as they are."""
        if isinstance(x, Rounded):
            return x
        exact = np.asarray(x, np.float64)
        return cls(exact, np.abs(exact - np.float32(exact)))

    def _result(self, value, error):
        return Rounded(value, error + U * (np.abs(value) + error) + self.TINY)

    def __add__(self, other):
        other = Rounded.of(other)
        return self._result(self.value + other.value, self.error + other.error)

    def __sub__(self, other):
        return self + -Rounded.of(other)

    def __neg__(self):
        return Rounded(-self.value, self.error)

    def __mul__(self, other):
        other = Rounded.of(other)
        error = np.abs(self.value) * other.error + self.error * (np.abs(other.value) + other.error)
        return self._result(self.value * other.value, error)

    def __truediv__(self, other):
        other = Rounded.of(other)
        value = self.value / other.value
        least = np.abs(other.value) - other.error
        assert np.all(least > 0), "the divisor may be 0"
        return self._result(value, (self.error + np.abs(value) * other.error) / least)

    def __radd__(self, other):
        return self + other

    def __rmul__(self, other):
        return self * other

    def sqrt(self):
        """|sqrt(x + d) - sqrt(x)| is at most sqrt(d), and at most d / sqrt(x)."""
        root = np.sqrt(self.value)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.fmin(np.sqrt(self.error), self.error / root)
        return self._result(root, error)

    def lerp(self, other, weight):
        """self + weight (other - self), from either end; not by the operators, which would count self's error twice."""
        other = Rounded.of(other)
        difference = np.abs(other.value - self.value) + self.error + other.error
        error = (1 - weight) * self.error + weight * other.error
        error = error + 3 * U * weight * difference  # of the weight, the difference and the product
        return self._result(self.value + weight * (other.value - self.value), error)

    def maximum(self, other):
        other = Rounded.of(other)
        return Rounded(np.maximum(self.value, other.value), np.maximum(self.error, other.error))
