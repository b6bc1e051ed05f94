"""Steps of the optimizers by their formulas, on one parameter, with bounds on the rounding of float32.

`state` maps names to what the step keeps (`Rounded`), and is brought up to date; the parameter after the step is
returned. Options are those of torch.optim, `step` counts from 1.
"""

from .rounding import Rounded


def square_average(average, g, decay):
    return average * decay + g * g * (1 - decay)


def gradient(param, grad, maximize=False, weight_decay=0.0):
    g = Rounded.of(grad)
    g = -g if maximize else g
    return g + param * weight_decay if weight_decay else g


def sgd(param, grad, state, *, lr, momentum=0.0, dampening=0.0, nesterov=False, **options):
    g = change = gradient(param, grad, **options)
    if "momentum_buffers" in state:
        buffer = state["momentum_buffers"] = state["momentum_buffers"] * momentum + g * (1 - dampening)
        change = g + buffer * momentum if nesterov else buffer
    return param - change * lr


def rmsprop(param, grad, state, *, lr, alpha=0.99, eps=1e-8, momentum=0.0, **options):
    g = gradient(param, grad, **options)
    variance = state["square_avgs"] = square_average(state["square_avgs"], g, alpha)
    if "grad_avgs" in state:
        mean = state["grad_avgs"] = state["grad_avgs"].lerp(g, 1 - alpha)
        variance = (variance - mean * mean).maximum(0.0)
    change = g / (variance.sqrt() + eps)
    if "momentum_buffers" in state:
        change = state["momentum_buffers"] = state["momentum_buffers"] * momentum + change
    return param - change * lr


def adagrad(param, grad, state, *, lr, step, lr_decay=0.0, eps=1e-10, **options):
    g = gradient(param, grad, **options)
    total = state["state_sums"] = state["state_sums"] + g * g
    return param - g / (total.sqrt() + eps) * (lr / (1 + (step - 1) * lr_decay))


def adadelta(param, grad, state, *, lr, rho=0.9, eps=1e-6, **options):
    g = gradient(param, grad, **options)
    square = state["square_avgs"] = square_average(state["square_avgs"], g, rho)
    delta = (state["acc_deltas"] + eps).sqrt() / (square + eps).sqrt() * g
    state["acc_deltas"] = square_average(state["acc_deltas"], delta, rho)
    return param - delta * lr


def adam(
    param,
    grad,
    state,
    *,
    lr,
    step,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    decoupled=False,
    weight_decay=0.0,
    maximize=False,
):
    g = gradient(param, grad, maximize, 0.0 if decoupled else weight_decay)
    if decoupled:
        param = param * (1 - lr * weight_decay)
    mean = state["exp_avgs"] = state["exp_avgs"].lerp(g, 1 - beta1)
    square = state["exp_avg_sqs"] = square_average(state["exp_avg_sqs"], g, beta2)
    if "max_exp_avg_sqs" in state:
        square = state["max_exp_avg_sqs"] = state["max_exp_avg_sqs"].maximum(square)
    root = square.sqrt() * (1 - beta2**step) ** -0.5
    return param - mean / (root + eps) * (lr / (1 - beta1**step))
