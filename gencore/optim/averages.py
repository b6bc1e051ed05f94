"""Averages of parameters along a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore._devices import to_host
from gencore.autograd import Tensor
from gencore.kernels import optim as kernels
from gencore.optim._checks import check_length, check_names, check_parameter, copy_like, listed

__all__ = ["EMA"]


class EMA:
    """Exponential moving averages of parameters, which often sample and score better than the last ones.

    Parameters
    ----------
    params : iterable of Tensors
        What is averaged; the averages start from their present values.
    decay : float
        What is kept of an average at each update, from 0 to 1.

    Attributes
    ----------
    averages : list of arrays
        One for each parameter.

    Examples
    --------
    >>> import gencore as gc
    >>> w = gc.tensor([1.0, 2.0], requires_grad=True)
    >>> ema = gc.optim.EMA([w], decay=0.5)
    >>> with gc.no_grad():
    ...     w += 1.0
    >>> ema.update()
    >>> with ema.average_parameters():
    ...     print(w.numpy())
    [1.5 2.5]
    """

    def __init__(self, params: Iterable[Tensor], decay: float) -> None:
        self._params = listed(params)
        self._inside = False
        for i, p in enumerate(self._params):
            check_parameter(f"EMA: expected params[{i}]", p, leaf=False)
        self.decay = _decay("EMA", decay)
        self.averages: list[NDArray[np.float32]] = [p._data.copy() for p in self._params]

    def update(self) -> None:
        """``average <- decay average + (1 - decay) parameter``, for all parameters in one pass."""
        if self._inside:
            raise RuntimeError("EMA.update: the parameters are the averages, inside average_parameters()")
        kernels.ema_update(self.averages, [p._data for p in self._params], decay=self.decay)

    @contextmanager
    def average_parameters(self) -> Iterator[None]:
        """Put the averages in place of the parameters; at the end, also by an exception, those come back.

        Memory: a copy of the parameters.
        """
        if self._inside:
            raise RuntimeError("EMA.average_parameters: the averages are in place already")
        kept = [p._data.copy() for p in self._params]
        self._inside = True
        try:
            self._write(self.averages)
            yield
        finally:
            self._write(kept)
            self._inside = False

    def _write(self, arrays: list[NDArray[np.float32]]) -> None:
        for p, array in zip(self._params, arrays, strict=True):
            p._data[...] = array
            p._bump()

    def state_dict(self) -> dict[str, Any]:
        """``"decay"`` and a copy of ``"averages"``."""
        return {"decay": self.decay, "averages": [np.array(to_host(array)) for array in self.averages]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, for parameters of the same shapes; an error changes nothing."""
        what = "EMA.load_state_dict"
        check_names(what, "state_dict", state_dict, {"decay", "averages"})
        saved = check_length(f"{what}: averages", state_dict["averages"], self.averages)
        arrays = [
            copy_like(f"{what}: averages[{i}]", a, b)
            for i, (a, b) in enumerate(zip(saved, self.averages, strict=True))
        ]
        self.decay, self.averages = _decay(what, state_dict["decay"]), arrays


def _decay(what: str, decay: float) -> float:
    if not 0 <= decay <= 1:
        raise ValueError(f"{what}: expected decay to be from 0 to 1, received {decay}")
    return float(decay)
