"""What all optimizers share: groups of parameters, the state of each, and how both are saved."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np

from gencore._devices import to_host
from gencore.autograd import Tensor
from gencore.kernels._arrays import contiguous, full
from gencore.optim._checks import check_length, check_names, check_parameter, copy_like, listed

__all__ = ["Optimizer"]

Group: TypeAlias = dict[str, Any]
Params: TypeAlias = Iterable[Tensor] | Iterable[Group]
State: TypeAlias = dict[str, Any]


class Optimizer(ABC):
    """What all optimizers share: groups of parameters, the state of each, and how both are saved.

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        float32 leaf Tensors that require gradients. A dict is a group: ``{"params": [...], "lr": 0.1}`` overrides the
        options of the constructor for its own parameters.
    defaults : dict
        Options of groups that do not override them.

    Attributes
    ----------
    param_groups : list of dicts
        ``"params"`` and the options by name. May be changed between steps.
    """

    def __init__(self, params: Params, defaults: Group) -> None:
        self._name = type(self).__name__
        self._defaults = defaults
        self._state: dict[int, State] = {}  # by the id of a parameter, which its group keeps alive
        self.param_groups: list[Group] = []
        given: list[Any] = [params] if isinstance(params, Tensor) else list(params)
        if not given:
            raise ValueError(f"{self._name}: expected params to hold at least one Tensor, received none")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    # -- what an optimizer says of itself

    _step_names: ClassVar[tuple[str, ...]] = ()  # options that its kernel takes by the same name

    @abstractmethod
    def _arrays(self, group: Group) -> dict[str, float]:
        """Arrays of the state under these options, and what they are filled with at first."""

    @abstractmethod
    def _check(self, group: Group) -> None:
        """Refuse options out of range."""

    @abstractmethod
    def _run(self, group: Group, step: int, fresh: bool, lists: dict[str, Any]) -> None:
        """One step of the kernel on parameters that have seen as many; `fresh` where their state was made just now."""

    # -- what a user calls

    def add_param_group(self, group: Group) -> None:
        """Add parameters with options of their own: ``{"params": tensor or tensors, "lr": ...}``.

        Raises
        ------
        ValueError, TypeError
            No float32 leaf Tensor that requires gradients; one that is there already; an unknown option, or one out of
            range.
        """
        where = f"param_groups[{len(self.param_groups)}]"
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(
                f'{self._name}: expected {where} to be a dict with "params", received {group!r:.60}'
            )
        unknown = sorted(group.keys() - self._defaults.keys() - {"params"})
        if unknown:
            options = ", ".join(self._defaults)
            raise ValueError(
                f"{self._name}: expected {where} to have options among {options}, received {', '.join(unknown)}"
            )
        params = listed(group["params"])
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for i, p in enumerate(params):
            check_parameter(f"{self._name}: expected {where} params[{i}]", p)
            if id(p) in known:
                raise ValueError(f"{self._name}: expected {where} params[{i}] once, received it twice")
            known.add(id(p))
        group = {**self._defaults, **group, "params": params}
        self._check(group)
        self.param_groups.append(group)

    def zero_grad(self) -> None:
        """Set ``grad`` of all parameters to None."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Update all parameters in place, by their gradients. A parameter whose ``grad`` is None stays as it is.

        Raises
        ------
        ValueError, TypeError
            An option that is not finite; a gradient of another dtype. Groups before that one are updated then.
        """
        for group in self.param_groups:
            self._step_group(group)

    def _step_group(self, group: Group) -> None:
        names = self._arrays(group)
        alike: dict[tuple[int, bool], list[tuple[Tensor, Tensor, State]]] = {}
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            state = self._state.get(id(p), {"step": 0})
            fresh = not names.keys() <= state.keys()
            if fresh:
                missing = names.keys() - state.keys()
                state = state | {n: full(p._data, p.shape, names[n], np.float32) for n in missing}
            alike.setdefault((state["step"] + 1, fresh), []).append((p, grad, state))
        for (step, fresh), members in alike.items():
            lists = {
                "params": [p._data for p, _, _ in members],
                "grads": [contiguous(grad._data) for _, grad, _ in members],
                **{f"{name}s": [state[name] for _, _, state in members] for name in names},
            }
            self._run(group, step, fresh, lists)
            for p, _, state in members:
                p._bump()
                state["step"] = step
                self._state[id(p)] = state

    def _options(self, group: Group) -> dict[str, Any]:
        return {name: group[name] for name in self._step_names}

    # -- saving

    def state_dict(self) -> dict[str, Any]:
        """Everything but the parameters, in copies: training goes on from it to the same bits.

        Returns
        -------
        dict
            ``"state"``: for each parameter that was updated, by its number, ``"step"`` and arrays by name;
            ``"param_groups"``: options, and the numbers of their parameters.
        """
        groups: list[Group] = []
        states: dict[int, State] = {}
        for group in self.param_groups:
            first = sum(len(g["params"]) for g in groups)
            groups.append({**group, "params": list(range(first, first + len(group["params"])))})
            for i, p in enumerate(group["params"], first):
                if id(p) in self._state:
                    kept = {
                        k: v for k, v in self._state[id(p)].items() if k == "step" or k in self._arrays(group)
                    }
                    states[i] = {k: v if k == "step" else np.array(to_host(v)) for k, v in kept.items()}
        return {"state": states, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, from an optimizer of the same class with parameters of the same shapes.

        Raises
        ------
        ValueError
            Missing or unexpected entries, by name; another number of groups or parameters; arrays of another shape or
            dtype. Nothing is changed then.
        """
        what = f"{self._name}.load_state_dict"
        check_names(what, "state_dict", state_dict, {"state", "param_groups"})
        groups = check_length(f"{what}: param_groups", state_dict["param_groups"], self.param_groups)
        loaded: list[Group] = []
        for g, (saved, group) in enumerate(zip(groups, self.param_groups, strict=True)):
            check_names(what, f"param_groups[{g}]", saved, {"params", *self._defaults})
            check_length(f"{what}: param_groups[{g}] params", saved["params"], group["params"])
            loaded.append({**saved, "params": group["params"]})
            self._check(loaded[-1])
        members = [(i, p, g) for s, g in zip(groups, loaded, strict=True)
                   for i, p in zip(s["params"], g["params"], strict=True)]  # fmt: skip
        unknown = sorted(state_dict["state"].keys() - {i for i, _, _ in members})
        if unknown:
            raise ValueError(f"{what}: expected state of the parameters there are, received {unknown}")
        states: dict[int, State] = {}
        for i, p, group in members:
            if i not in state_dict["state"]:
                continue
            saved, names = state_dict["state"][i], self._arrays(group)
            check_names(what, f"state[{i}]", saved, {"step", *names})
            arrays = {k: copy_like(f"{what}: state[{i}][{k!r}]", saved[k], p._data) for k in names}
            states[id(p)] = {"step": int(saved["step"]), **arrays}
        self._state = states
        for group, new in zip(self.param_groups, loaded, strict=True):
            group.update(new)

    def __repr__(self) -> str:
        groups = (
            f"{len(g['params'])} parameters, " + ", ".join(f"{k}={v}" for k, v in g.items() if k != "params")
            for g in self.param_groups
        )
        return f"{self._name}({'; '.join(groups)})"

    def _at_least_0(self, group: Group, *names: str) -> None:
        for name in names:
            if not (math.isfinite(group[name]) and group[name] >= 0):
                raise ValueError(f"{self._name}: expected {name} to be at least 0, received {group[name]}")

    def _fraction(self, name: str, value: float, *, most: bool = False) -> None:
        if not (0 <= value < 1 or (most and value == 1)):
            end = "1" if most else "below 1"
            raise ValueError(f"{self._name}: expected {name} to be from 0 to {end}, received {value}")
