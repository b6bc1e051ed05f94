"""The optimizers: their options, the state they keep, and the kernel of each."""

from __future__ import annotations

from typing import Any, ClassVar

from gencore.kernels import optim as kernels
from gencore.optim._checks import check_length
from gencore.optim.base import Group, Optimizer, Params

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "RMSprop"]


class SGD(Optimizer):
    """Gradient descent with momentum, as `torch.optim.SGD`; the formulas are those of `gencore.kernels.optim.sgd_step`.

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        See `Optimizer`.
    lr : float
        Learning rate.
    momentum, dampening : float
        What is kept of the running sum, and what of a gradient is kept out of it.
    weight_decay : float
        Its multiple of the parameter is added to the gradient.
    nesterov : bool
        Look one step ahead; needs momentum and no dampening.
    maximize : bool
        Go uphill.
    """

    _step_names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening,
                                  "weight_decay": weight_decay, "nesterov": nesterov,
                                  "maximize": maximize})  # fmt: skip

    def _check(self, group: Group) -> None:
        self._at_least_0(group, "lr", "momentum", "weight_decay")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                f"SGD: expected momentum above 0 and dampening 0 for nesterov, received {group['momentum']} and "
                f"{group['dampening']}"
            )

    def _arrays(self, group: Group) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if group["momentum"] != 0 else {}

    def _run(self, group: Group, step: int, fresh: bool, lists: dict[str, Any]) -> None:
        options = self._options(group)
        if fresh:  # the first gradient goes into the buffer whole
            options["dampening"] = 0.0
        kernels.sgd_step(**lists, **options)


class RMSprop(Optimizer):
    """Steps divided by a running root mean square, as `torch.optim.RMSprop`; see `gencore.kernels.optim.rmsprop_step`.

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        See `Optimizer`.
    lr : float
        Learning rate.
    alpha : float
        What is kept of the running means.
    eps : float
        Added to the root.
    weight_decay : float
        Its multiple of the parameter is added to the gradient.
    momentum : float
        What is kept of the running sum of steps.
    centered : bool
        Divide by the running standard deviation.
    maximize : bool
        Go uphill.
    """

    _step_names = ("lr", "alpha", "eps", "weight_decay", "momentum", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
                                  "momentum": momentum, "centered": centered, "maximize": maximize})  # fmt: skip

    def _check(self, group: Group) -> None:
        self._at_least_0(group, "lr", "alpha", "eps", "weight_decay", "momentum")

    def _arrays(self, group: Group) -> dict[str, float]:
        used = {"square_avg": True, "grad_avg": group["centered"], "momentum_buffer": group["momentum"] != 0}
        return {name: 0.0 for name, wanted in used.items() if wanted}

    def _run(self, group: Group, step: int, fresh: bool, lists: dict[str, Any]) -> None:
        kernels.rmsprop_step(**lists, **self._options(group))


class Adagrad(Optimizer):
    """Steps divided by the root of summed squares, as `torch.optim.Adagrad`; see `gencore.kernels.optim.adagrad_step`.

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        See `Optimizer`.
    lr : float
        Learning rate.
    lr_decay : float
        How fast it falls.
    weight_decay : float
        Its multiple of the parameter is added to the gradient.
    initial_accumulator_value : float
        What the sums start from.
    eps : float
        Added to the root.
    maximize : bool
        Go uphill.
    """

    _step_names = ("lr", "lr_decay", "weight_decay", "eps", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay,
                                  "initial_accumulator_value": initial_accumulator_value, "eps": eps,
                                  "maximize": maximize})  # fmt: skip

    def _check(self, group: Group) -> None:
        self._at_least_0(group, "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def _arrays(self, group: Group) -> dict[str, float]:
        return {"state_sum": group["initial_accumulator_value"]}

    def _run(self, group: Group, step: int, fresh: bool, lists: dict[str, Any]) -> None:
        kernels.adagrad_step(**lists, **self._options(group), step=step)


class Adadelta(Optimizer):
    """Steps in the parameters' own units, as `torch.optim.Adadelta`; see `gencore.kernels.optim.adadelta_step`.

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        See `Optimizer`.
    lr : float
        What the step is multiplied by.
    rho : float
        What is kept of the running means.
    eps : float
        Added to both means.
    weight_decay : float
        Its multiple of the parameter is added to the gradient.
    maximize : bool
        Go uphill.
    """

    _step_names = ("lr", "rho", "eps", "weight_decay", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def _check(self, group: Group) -> None:
        self._at_least_0(group, "lr", "eps", "weight_decay")
        self._fraction("rho", group["rho"], most=True)

    def _arrays(self, group: Group) -> dict[str, float]:
        return {"square_avg": 0.0, "acc_delta": 0.0}

    def _run(self, group: Group, step: int, fresh: bool, lists: dict[str, Any]) -> None:
        kernels.adadelta_step(**lists, **self._options(group))


class Adam(Optimizer):
    """Steps from running first and second moments, as `torch.optim.Adam`; see `gencore.kernels.optim.adam_step`.

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        See `Optimizer`.
    lr : float
        Learning rate.
    betas : (float, float)
        What is kept of the running means of gradients and of their squares.
    eps : float
        Added to the root.
    weight_decay : float
        Its multiple of the parameter is added to the gradient (in `AdamW`: times `lr`, is taken off the parameter).
    amsgrad : bool
        Divide by the largest second moment so far.
    maximize : bool
        Go uphill.
    """

    _step_names = ("lr", "eps", "weight_decay", "maximize")
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "amsgrad": amsgrad, "maximize": maximize})  # fmt: skip

    def _check(self, group: Group) -> None:
        self._at_least_0(group, "lr", "eps", "weight_decay")
        for i, beta in enumerate(check_length(f"{self._name}: betas", group["betas"], (0, 1))):
            self._fraction(f"betas[{i}]", beta)

    def _arrays(self, group: Group) -> dict[str, float]:
        names = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
        return names | {"max_exp_avg_sq": 0.0} if group["amsgrad"] else names

    def _run(self, group: Group, step: int, fresh: bool, lists: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        options = {"beta1": beta1, "beta2": beta2, "step": step, "decoupled": self._decoupled}
        kernels.adam_step(**lists, **self._options(group), **options)


class AdamW(Adam):
    """Adam whose weight decay does not pass through the moments, as `torch.optim.AdamW`. Parameters: see `Adam`."""

    _decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
