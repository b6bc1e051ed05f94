"""First and second derivatives along directions: by differences of a float64 function, and by the tape."""

import numpy as np

import gencore as gc


def moved(args, *steps):
    """The arguments plus multiples of directions: steps are (size, directions)."""
    args = [a.astype(np.float64) for a in args]
    for size, directions in steps:
        args = [a + size * d for a, d in zip(args, directions, strict=True)]
    return args


def extrapolated(difference, h):
    """Richardson: what is left of a central difference's error is of the order h^4."""
    return (4 * difference(h / 2) - difference(h)) / 3


def slope(f, args, d):
    """The derivative of f along d: truncation and rounding stay near 1e-12 of f's size."""
    return extrapolated(lambda h: (f(*moved(args, (h, d))) - f(*moved(args, (-h, d)))) / (2 * h), 1e-3)


def curvature(f, args, d, e):
    """The derivative of that along e: near 1e-10 of f's size, far below float32."""

    def difference(h):
        corners = (s * t * f(*moved(args, (s * h, d), (t * h, e))) for s in (1, -1) for t in (1, -1))
        return sum(corners) / (4 * h * h)

    return extrapolated(difference, 4e-3)


def dot(arrays, directions):
    return sum(
        float(np.sum(a.numpy().astype(np.float64) * d)) for a, d in zip(arrays, directions, strict=True)
    )


def derivatives(op, args, d):
    """Along d, by the tape: the gradient of sum(c y + y^2 / 2), and that of its derivative along d."""
    leaves = [gc.tensor(a, requires_grad=True) for a in args]
    first = gc.grad(op(*leaves), leaves, create_graph=True)
    along = sum(np.sum(g * direction.astype(np.float32)) for g, direction in zip(first, d, strict=True))
    return first, gc.grad(along, leaves, allow_unused=True)
