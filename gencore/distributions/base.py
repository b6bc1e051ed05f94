"""What every distribution shares: parameters, shapes, checks of arguments, and the public methods."""

from __future__ import annotations

from typing import Any, ClassVar, SupportsIndex

import numpy as np

from gencore.autograd import Tensor, no_grad
from gencore.autograd.tensors import plain, wrap
from gencore.distributions import constraints
from gencore.distributions._functions import spread
from gencore.distributions.constraints import Constraint
from gencore.random import KeyLike

__all__ = ["Distribution", "Parameter", "Shape", "require"]

Shape = SupportsIndex | tuple[SupportsIndex, ...]

# Densities underflow to -inf and moments overflow to inf where the true value is beyond the dtype; that is an answer.
_beyond = {"over": "ignore", "divide": "ignore"}


class Parameter:
    """A parameter as users see it: broadcast to the batch shape."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else instance._spread(instance._given[self._name])


class Distribution:
    """Base of the distributions, with `torch.distributions`' names.

    Parameters may be Tensors, arrays or numbers and broadcast with each other. Numbers take the floating-point type of
    the others, float32 if all are numbers. Results are Tensors if a parameter or the value is one, else arrays; they
    are float64 where one of these is. Draws are float32 always.

    Parameters are kept as given and broadcast in each call: two losses of one distribution are two graphs.

    Attributes
    ----------
    batch_shape : tuple of int
        Of the parameters: as many distributions, independent of each other.
    event_shape : tuple of int
        Of one draw: () or, for rows that are drawn together, (K,).
    dtype : numpy.dtype
        Common type of the parameters.
    support : Constraint
        Where draws lie; `log_prob` refuses other values.
    has_rsample : bool
        Whether draws can be differentiated.
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    has_rsample: ClassVar[bool] = False
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __init__(self, validate_args: bool, **given: Any) -> None:
        self._validate = bool(validate_args)
        name = type(self).__name__
        self.dtype = _common_dtype(name, given)
        self._given = {n: _array(name, n, x, self.dtype) for n, x in given.items()}
        shapes, self.event_shape = [], ()
        for n, x in self._given.items():
            ndim = self.arg_constraints[n].event_ndim
            shape = np.shape(x)
            if len(shape) < ndim or (ndim > 0 and shape[-1] == 0):
                raise ValueError(
                    f"{name}: expected {n} of shape (..., K) with K of at least 1, received {shape}"
                )
            shapes.append(shape[: len(shape) - ndim])
            self.event_shape = self.event_shape or shape[len(shape) - ndim :]
        try:
            self.batch_shape = np.broadcast_shapes(*shapes)
        except ValueError:
            raise ValueError(
                f"{name}: expected {' and '.join(given)} of shapes that broadcast, received "
                f"{' and '.join(str(np.shape(x)) for x in self._given.values())}"
            ) from None
        if self._validate:
            for n, x in self._given.items():
                require(name, n, x, self.arg_constraints[n])

    # -- what each class gives; where it gives none, it is not known in closed form

    @property
    def support(self) -> Constraint:
        """Where draws lie."""
        return constraints.real

    def _none(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__}: {what} is not known in closed form")

    def _mean(self) -> Any:
        raise self._none("mean")

    def _mode(self) -> Any:
        raise self._none("mode")

    def _variance(self) -> Any:
        raise self._none("variance")

    def _stddev(self) -> Any:
        return np.sqrt(self._variance())

    def _entropy(self) -> Any:
        raise self._none("entropy")

    def _log_prob(self, value: Any) -> Any:
        raise self._none("log_prob")

    def _cdf(self, value: Any) -> Any:
        raise self._none("cdf")

    def _icdf(self, value: Any) -> Any:
        raise self._none("icdf")

    # -- moments

    @property
    def mean(self) -> Any:
        """Expected value, of shape ``batch_shape + event_shape``."""
        return self._moment(self._mean)

    @property
    def mode(self) -> Any:
        """Where density or probability is largest, of shape ``batch_shape + event_shape``."""
        return self._moment(self._mode)

    @property
    def variance(self) -> Any:
        """Of shape ``batch_shape + event_shape``."""
        return self._moment(self._variance)

    @property
    def stddev(self) -> Any:
        """Standard deviation, of shape ``batch_shape + event_shape``."""
        return self._moment(self._stddev)

    def _moment(self, function: Any) -> Any:
        with np.errstate(**_beyond):  # type: ignore[arg-type]
            return self._spread(self._as_given(function()), self.event_shape)

    # -- densities

    def entropy(self) -> Any:
        """Entropy in nats, of shape `batch_shape`; differential entropy of continuous distributions.

        Gradient: to the parameters, to any order.
        """
        with np.errstate(**_beyond):  # type: ignore[arg-type]
            return self._spread(self._entropy())

    def log_prob(self, value: Any) -> Any:
        """Logarithm of density or probability.

        Parameters
        ----------
        value : Tensor, array or number
            Of a shape that broadcasts with ``batch_shape + event_shape``.

        Returns
        -------
        Tensor or array
            In nats, of the broadcast shape without `event_shape`. -inf where the density is 0 or beyond the dtype.

        Notes
        -----
        Gradient: to parameters and value, to any order.

        Raises
        ------
        ValueError, TypeError
            A shape that does not fit; a value outside `support`, unless ``validate_args=False``.
        """
        x = self._value("log_prob", value, self.support)
        with np.errstate(**_beyond):  # type: ignore[arg-type]
            return self._log_prob(x)

    def cdf(self, value: Any) -> Any:
        """Probability of a draw up to `value`: 0 below the support, 1 above it. Exact in the lower tail."""
        x = self._value("cdf", value, None)
        with np.errstate(**_beyond):  # type: ignore[arg-type]
            return self._cdf(x)

    def icdf(self, value: Any) -> Any:
        """Inverse of `cdf`, for probabilities from 0 to 1: the ends of the support at these."""
        p = self._value("icdf", value, constraints.unit_interval)
        with np.errstate(**_beyond):  # type: ignore[arg-type]
            return self._icdf(p)

    # -- draws

    def rsample(self, shape: Shape = (), *, key: KeyLike) -> Any:
        """Draws that can be differentiated: the parameters' gradient through the draw (reparameterisation).

        Parameters
        ----------
        shape : int or tuple of int
            In front of ``batch_shape + event_shape``.
        key : Key, int or Generator
            Random numbers: the same key gives the same draws, a Generator others in each call.

        Returns
        -------
        float32 Tensor or array of shape ``shape + batch_shape + event_shape``

        Notes
        -----
        Rows run along all axes but the last (`gencore.kernels.sample`): fewer rows of the same key are the first
        ones of more. Noise is never stored; the backward pass computes it again. Extra memory: the parameters,
        broadcast to the result.

        Raises
        ------
        NotImplementedError
            Draws without such a gradient (Bernoulli, Categorical): use `sample`.
        """
        raise NotImplementedError(f"{type(self).__name__}: draws have no pathwise gradient; use sample")

    def sample(self, shape: Shape = (), *, key: KeyLike) -> Any:
        """Draws without gradient; those of `rsample` where there is one. Arguments and result as there."""
        with no_grad():
            return self.rsample(shape, key=key)

    # -- shapes

    def expand(self, batch_shape: tuple[int, ...]) -> Any:
        """Give the same distribution a larger batch shape, by broadcasting."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.batch_shape = tuple(map(int, batch_shape))
        try:
            np.broadcast_to(np.broadcast_to(0, self.batch_shape), new.batch_shape)
        except ValueError:
            raise ValueError(
                f"{type(self).__name__}.expand: expected a shape that {self.batch_shape} broadcasts to, "
                f"received {new.batch_shape}"
            ) from None
        new._given = {
            n: spread(x, new.batch_shape + np.shape(x)[np.ndim(x) - self.arg_constraints[n].event_ndim :])
            for n, x in self._given.items()
        }
        return new

    def _has_tensors(self) -> bool:
        return any(isinstance(x, Tensor) for x in self._given.values())

    def _as_given(self, x: Any) -> Any:
        """What has no gradient, as a Tensor if the parameters are."""
        return wrap(np.asarray(x)) if self._has_tensors() and not isinstance(x, Tensor) else x

    def _spread(self, x: Any, event: tuple[int, ...] = ()) -> Any:
        shape = self.batch_shape + event
        return x if np.shape(x) == shape else spread(x, shape)

    def _draw_shape(self, shape: Shape) -> tuple[int, ...]:
        wanted = shape if isinstance(shape, tuple) else (shape,)
        return tuple(int(n.__index__()) for n in wanted) + self.batch_shape + self.event_shape

    def _whole(self, x: Any, shape: tuple[int, ...]) -> Any:
        """A parameter as a kernel takes it: float32, of the shape of the draws."""
        return spread(x if x.dtype == np.float32 else x.astype(np.float32), shape)

    # -- arguments

    def _value_dtype(self) -> np.dtype[Any]:
        """What values become that are no floating-point numbers."""
        return self.dtype

    def _value(self, method: str, value: Any, constraint: Constraint | None) -> Any:
        name = f"{type(self).__name__}.{method}"
        x = _array(name, "value", value, self._value_dtype())
        shape, events = np.shape(x), len(self.event_shape)
        try:
            if shape[len(shape) - events :] != self.event_shape:
                raise ValueError
            np.broadcast_shapes(shape[: len(shape) - events], self.batch_shape)
        except ValueError:
            of = f"event shape {self.event_shape}, " if events else ""
            raise ValueError(
                f"{name}: expected value of {of}a shape that broadcasts with batch shape {self.batch_shape}, "
                f"received {shape}"
            ) from None
        if self._validate and constraint is not None:
            require(name, "value", x, constraint)
        return x

    def __repr__(self) -> str:
        given = (
            f"{n}={plain(x).item():.6g}" if np.ndim(x) == 0 else f"{n} of shape {np.shape(x)}"
            for n, x in self._given.items()
        )
        return f"{type(self).__name__}({', '.join(given)})"


def _common_dtype(name: str, given: dict[str, Any]) -> np.dtype[Any]:
    kinds = [x.dtype for x in given.values() if hasattr(x, "dtype") and x.dtype.kind == "f"]
    return np.result_type(np.float32, *kinds)


def _array(name: str, argument: str, x: Any, dtype: np.dtype[Any]) -> Any:
    """An array or Tensor of float32 or float64; other numbers take the dtype given."""
    if isinstance(x, Tensor) or hasattr(x, "__cuda_array_interface__"):
        found = x
    else:
        try:
            found = np.asarray(x)
        except ValueError:
            found = np.asarray(x, object)
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected {argument} to be numbers, received {x!r:.60}")
    if hasattr(x, "dtype") and found.dtype in (np.float32, np.float64):
        return found
    return found if found.dtype == dtype else found.astype(dtype)


def require(name: str, argument: str, x: Any, constraint: Constraint) -> None:
    """Say which number, and where, is not what the constraint wants."""
    good = constraint.check(x)
    if good.all():
        return
    at = tuple(int(i) for i in np.argwhere(~good)[0])
    data = np.asarray(plain(x))
    if constraint.event_ndim == 0:
        data = np.broadcast_to(data, good.shape)
    where = f" at {at}" if at else ""
    raise ValueError(f"{name}: expected {argument} to be {constraint.text}, received {data[at]!s:.60}{where}")
