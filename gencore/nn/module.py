"""Modules: parts of a model that hold parameters, found by their dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gencore._devices import check_device, place
from gencore.autograd import Tensor, tensor
from gencore.kernels._arrays import placed

__all__ = ["Module"]


class Module:
    """Base of all layers and neural models.

    A `Tensor` that requires gradients and is set as an attribute is a parameter; a Tensor that does not is a buffer
    (state that is saved but not learned); a Module is a part, and so are the Modules in a list that is set as an
    attribute. Define ``forward``; call the module itself.

    Attributes
    ----------
    training : bool
        Whether layers that behave differently in training (dropout, batch normalisation) do so.

    Examples
    --------
    >>> import gencore as gc
    >>> class Scale(gc.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = gc.tensor([2.0], requires_grad=True)
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> dict(Scale().named_parameters())
    {'factor': tensor([2.], requires_grad=True)}
    """

    training: bool
    is_model: ClassVar[bool] = False
    """Whether it keeps ``config`` and ``steps``, the count of its updates, as the models of `gencore.models` do."""

    def __init__(self) -> None:
        self.training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; defined by each kind of module."""
        raise TypeError(f"{type(self).__name__}: defines no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``forward``."""
        return self.forward(*args, **kwargs)

    # --- what it holds ------------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield ``(name, module)``: itself as "", its parts as "encoder", theirs as "encoder.0"; each module once."""
        yield from self._named_modules(prefix, set())

    def _named_modules(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, value in vars(self).items():
            here = f"{prefix}.{name}" if prefix else name
            if isinstance(value, Module):
                yield from value._named_modules(here, seen)
            elif isinstance(value, list | tuple):
                for i, part in enumerate(value):
                    if isinstance(part, Module):
                        yield from part._named_modules(f"{here}.{i}", seen)

    def modules(self) -> Iterator[Module]:
        """Yield itself and all parts."""
        return (module for _, module in self.named_modules())

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and value.is_leaf and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield ``(dotted name, parameter)``; a parameter that is shared appears once."""
        return ((name, t) for name, t in self._named_tensors() if t.requires_grad)

    def parameters(self) -> Iterator[Tensor]:
        """Yield the parameters, in the order of their names' definition."""
        return (t for _, t in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield ``(dotted name, Tensor)`` of state that is saved but not learned."""
        return ((name, t) for name, t in self._named_tensors() if not t.requires_grad)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, training: bool = True) -> Self:
        """Switch this module and its parts to training, or to evaluation. Returns the module."""
        for module in self.modules():
            module.training = training
        return self

    def eval(self) -> Self:
        """Switch to evaluation. Returns the module."""
        return self.train(False)

    def to(self, device: str) -> Self:
        """Move parameters and buffers to "cpu" or "cuda", where they are not there yet. Returns the module.

        Raises
        ------
        ValueError, ImportError
            Another device; CuPy is not installed.
        """
        what = f"{type(self).__name__}.to"
        check_device(what, device)
        for _, t in self._named_tensors():
            if t.device != device:
                t._data = place(what, t._data, device)
                t._watch = [0]
                if t.grad is not None:
                    t.grad = None
        return self

    # --- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of all parameters and buffers, on the host, by dotted name."""
        return {name: np.array(t.detach().copy().numpy()) for name, t in self._named_tensors()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Take the values of `state` (arrays or Tensors by dotted name), in place.

        Parameters
        ----------
        state : mapping of str to array
            As `state_dict` returns it.
        strict : bool
            Whether the names must be exactly those of this module.

        Raises
        ------
        ValueError, TypeError
            Names that are missing and names that nobody expects, all of them listed; a shape or dtype that differs.
            Nothing is changed then.
        """
        own = dict(self._named_tensors())
        missing, unexpected = [n for n in own if n not in state], [n for n in state if n not in own]
        if strict and (missing or unexpected):
            parts = [f"missing {', '.join(missing)}"] if missing else []
            parts += [f"unexpected {', '.join(unexpected)}"] if unexpected else []
            raise ValueError(f"load_state_dict: does not fit a {type(self).__name__}: {'; '.join(parts)}")
        arrays = {
            n: v._data if isinstance(v, Tensor) else np.asarray(v) for n, v in state.items() if n in own
        }
        for name, array in arrays.items():
            if array.shape != own[name].shape:
                raise ValueError(
                    f"load_state_dict: expected {name} of shape {own[name].shape}, received {array.shape}"
                )
            if array.dtype != own[name].dtype:
                raise TypeError(
                    f"load_state_dict: expected {name} of dtype {own[name].dtype}, received {array.dtype}"
                )
        for name, array in arrays.items():
            own[name]._data[...] = placed(own[name]._data, array, array.dtype)
            own[name]._bump()

    def __repr__(self) -> str:
        parts = [
            f"{name}={value!r}"
            for name, value in vars(self).items()
            if isinstance(value, Module) or _config(name, value)
        ]
        return f"{type(self).__name__}({', '.join(parts)})"


def _config(name: str, value: Any) -> bool:
    return not name.startswith("_") and name != "training" and isinstance(value, int | float | str | tuple)


def parameter(array: Any) -> Tensor:
    """Make a Tensor of its own memory that is learned."""
    return tensor(array, requires_grad=True)
