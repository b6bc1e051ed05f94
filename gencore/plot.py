"""Pictures of samples, filters and learning curves, as matplotlib Figures and files.

matplotlib is imported when something is drawn. Figures are made without pyplot: nothing is shown, no window
or backend is touched, and nothing has to be closed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gencore._devices import from_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from gencore.evaluate import GradientVariance

__all__ = ["curves", "filters", "gradient_variance", "samples"]

_DPI = 128  # a power of two: sizes in inches are exact, and so are pixels
_SHEET = 900  # a sheet of images is magnified to at most this many pixels a side
_ZOOM = 24  # but a pixel of an image to at most this many
_GAP = 3
_MARGIN = 18
_GAP_GREY = 154
_COLORS = {"train": "#1f6fb4", "valid": "#e07b00", "test": "#2e8b57"}
_PREFIXES = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}
_X_NAMES = ("epoch", "step")
_NOT_DRAWN = (*_X_NAMES, "seconds", "lr")
_LABELS = {
    "log_likelihood": "log-likelihood (nats per example)",
    "pseudo_log_likelihood": "pseudo-log-likelihood (nats per example)",
    "negative_log_likelihood": "negative log-likelihood (nats per example)",
    "elbo": "evidence lower bound (nats per example)",
    "reconstruction": "log p(x | z), reconstruction (nats per example)",
    "kl": "KL divergence from the prior (nats per example)",
    "free_energy": "free energy (nats)",
    "free_energy_gap": "free energy gap, valid - train (nats)",
    "log_partition": "log Z (nats)",
    "reconstruction_error": "reconstruction error (mean square)",
    "lr": "learning rate",
}


class HasRecords(Protocol):
    """A training history: one mapping per record, such as ``{"epoch": 1, "log_likelihood": -130.2}``."""

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """The records in the order of training."""


def samples(
    X: ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    shape: tuple[int, int] | None = None,
    count: int = 100,
    columns: int | None = None,
    title: str | None = None,
    framed: bool = True,
) -> Figure:
    """Draw images side by side.

    Parameters
    ----------
    X : array_like, shape (n, h * w), (n, h, w) or (n, h, w, 3)
        Grey levels, or colours, where black is 0 (or the least value if negative) and white is 1 (or the
        largest value if above). Boolean, integer or float.
    path : path-like, optional
        File to write; its suffix names the format (.png, .pdf, .svg).
    shape : (int, int), optional
        Height and width of an image where X has rows of pixels; by default they are square.
    count : int
        Draw the first `count` images at most.
    columns : int, optional
        Images a line; by default the sheet comes out about square.
    title : str, optional
        Text above.
    framed : bool
        Draw grey lines around the images; without them images touch, as those of a latent manifold.

    Returns
    -------
    matplotlib.figure.Figure
        Every pixel of an image is a square of the same whole number of pixels, not blurred.

    Raises
    ------
    ValueError
        X is empty, not finite or of another shape, or its rows are not images of that shape.
    """
    images = _finite("samples", "X", X)
    if images.ndim == 2:
        images = images.reshape(-1, *_image_shape("samples", "X", images.shape[1], shape))
    elif shape is not None and images.shape[1:3] != tuple(shape):
        raise ValueError(
            f"samples: expected images of shape {tuple(shape)}, received X of shape {images.shape}"
        )
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)) or 0 in images.shape:
        raise ValueError(
            f"samples: expected X of shape (n, h * w), (n, h, w) or (n, h, w, 3), received {images.shape}"
        )
    images = images[: _positive("samples", "count", count)].astype(np.float64)
    low, high = min(0.0, images.min()), max(1.0, images.max())
    images = (images - low) / (high - low)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if columns is not None:
        _positive("samples", "columns", columns)
    rgb = np.broadcast_to(images, (*images.shape[:3], 3))
    return _saved(_sheet(rgb, columns, title, gap=_GAP if framed else 0), path)


def filters(
    weight: ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    shape: tuple[int, int] | None = None,
    count: int = 100,
    columns: int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the weights into each hidden unit as an image, the filters of largest norm first.

    Parameters
    ----------
    weight : array_like, shape (n_visible, n_hidden)
        One filter a column.
    path, shape, columns : optional
        As for `samples`.
    count : int
        Draw this many filters at most.
    title : str, optional
        Text above; by default it says how many of how many are drawn.

    Returns
    -------
    matplotlib.figure.Figure
        Blue is negative, white is zero, red is positive, on one scale for all filters that ends where 99.5 %
        of the weights drawn lie inside.

    Raises
    ------
    ValueError
        The weights are empty, not finite or not a matrix, or the filters are not images of that shape.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    matrix = _finite("filters", "weight", weight)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"filters: expected weight of shape (n_visible, n_hidden), received {matrix.shape}")
    height, width = _image_shape("filters", "weight", matrix.shape[0], shape, axis="rows")
    order = np.argsort(-np.linalg.norm(matrix, axis=0), kind="stable")[: _positive("filters", "count", count)]
    images = matrix.T[order].reshape(-1, height, width).astype(np.float64)
    limit = float(np.quantile(np.abs(images), 0.995)) or float(np.abs(images).max()) or 1.0
    if title is None:
        shown, total = len(order), matrix.shape[1]
        title = f"{total} filters" if shown == total else f"{shown} of {total} filters, largest norm first"
    if columns is not None:
        _positive("filters", "columns", columns)
    scale = ScalarMappable(Normalize(-limit, limit, clip=True), "RdBu_r")
    rgb = np.asarray(scale.cmap(np.asarray(scale.norm(images))))[..., :3]
    figure = _sheet(rgb, columns, title, scale, "weight", extend=bool(np.abs(images).max() > limit))
    return _saved(figure, path)


def curves(
    history: Mapping[str, Sequence[float | None]] | HasRecords,
    path: str | os.PathLike[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    x: str | None = None,
    title: str | None = None,
) -> Figure:
    """Draw learning curves, one panel a quantity, with train, valid and test in the same panel.

    Parameters
    ----------
    history : mapping or object with ``records``
        Sequences of values by name, or what `fit` returns: ``records``, a list of mappings from name to
        value. Names that differ by ``train_``, ``valid_``, ``validation_`` or ``test_`` in front are one
        quantity, and a name without is its train part. A None, or a name that a record lacks, is no point.
    path : path-like, optional
        File to write; its suffix names the format (.png, .pdf, .svg).
    names : sequence of str, optional
        Quantities to draw, without those prefixes; by default all but ``epoch``, ``step``, ``seconds`` and
        ``lr``.
    x : str, optional
        Name of the horizontal axis; by default ``epoch`` or else ``step``, where the history has it, or else
        the number of the record.
    title : str, optional
        Text above.

    Returns
    -------
    matplotlib.figure.Figure
        One Axes for each quantity, in the order of the history.

    Raises
    ------
    ValueError
        The history holds no values, or none by a name that was asked for.
    """
    columns = _columns(history)
    x = x if x is not None else next((name for name in _X_NAMES if name in columns), None)
    if x is not None and x not in columns:
        raise ValueError(f"curves: expected {x!r} in the history, which has {', '.join(columns)}")
    panels: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, values in columns.items():
        prefix, _, rest = name.partition("_")
        quantity, split = (rest, _PREFIXES[prefix]) if prefix in _PREFIXES and rest else (name, "train")
        wanted = name not in (*_NOT_DRAWN, x) if names is None else quantity in names
        if wanted and np.isfinite(values).any():
            panels.setdefault(quantity, {})[split] = values
    absent = [name for name in names or () if name not in panels]
    if absent or not panels:
        what = f"values of {', '.join(absent)}" if absent else "values to draw"
        raise ValueError(
            f"curves: expected {what} in the history, which has {', '.join(columns) or 'nothing'}"
        )
    figure = _panels(panels, None if x is None else columns[x], x or "record", title)
    return _saved(figure, path)


def gradient_variance(
    results: Mapping[str, GradientVariance],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Draw the variance of each estimator's gradient as bars on a log scale, encoder and decoder side by side.

    Parameters
    ----------
    results : mapping of str to GradientVariance
        What `gencore.evaluate.gradient_variance` returns.
    path, title : optional
        As for `curves`.

    Returns
    -------
    matplotlib.figure.Figure
        The number above a bar is its height: the variance summed over the parameters. A variance of 0, which a log
        scale does not have, is written instead of a bar.

    Raises
    ------
    ValueError
        No results, or a variance that is not finite.
    """
    if not results:
        raise ValueError("gradient_variance: expected results of at least one estimator, received none")
    names = list(results)
    heights = {
        part: np.array([getattr(results[name], f"{part}_variance") for name in names], np.float64)
        for part in ("encoder", "decoder")
    }
    everything = _finite("gradient_variance", "results", np.concatenate(list(heights.values())))
    drawn = everything[everything > 0]
    floor = 10.0 ** (math.floor(math.log10(drawn.min())) - 0.5) if len(drawn) else 0.1
    top = 10.0 ** (math.log10(drawn.max()) + 0.6) if len(drawn) else 1.0  # room for the numbers
    figure = _new_figure(260 + 170 * max(len(names), 2), 480, layout="constrained")
    axes = figure.add_subplot()
    for i, (part, color) in enumerate((("encoder", _COLORS["train"]), ("decoder", _COLORS["valid"]))):
        at = np.arange(len(names)) + (i - 0.5) * 0.4
        axes.bar(at, np.maximum(heights[part], floor) - floor, 0.36, bottom=floor, color=color, label=part)
        for x, y in zip(at, heights[part], strict=True):
            text = f"{y:.2g}" if y > 0 else "0"
            axes.annotate(
                text,
                (x, max(y, floor)),
                (0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
            )
    axes.set_yscale("log")
    axes.set_ylim(floor, top)
    axes.set_xticks(np.arange(len(names)), names)
    axes.set_ylabel("gradient variance, summed")
    axes.set_title(title or "Variance of the gradient", loc="left", fontsize=10)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return _saved(figure, path)


# --- arguments ----------------------------------------------------------------------------------------------


def _finite(function: str, argument: str, value: ArrayLike) -> NDArray[Any]:
    array = np.asarray(from_device(value))
    if array.dtype.kind not in "buif":
        raise TypeError(f"{function}: expected numbers in {argument}, received {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{function}: expected finite numbers in {argument}, received NaN or infinity")
    return array


def _positive(function: str, argument: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{function}: expected {argument} of at least 1, received {value}")
    return value


def _image_shape(
    function: str, argument: str, n_pixels: int, shape: tuple[int, int] | None, axis: str = "columns"
) -> tuple[int, int]:
    if shape is None:
        side = math.isqrt(n_pixels)
        if side * side != n_pixels:
            raise ValueError(
                f"{function}: {n_pixels} {axis} of {argument} are no square image: give shape=(height, width)"
            )
        return side, side
    height, width = shape
    if min(height, width) < 1 or height * width != n_pixels:
        raise ValueError(
            f"{function}: expected {height} x {width} = {height * width} {axis} in {argument} for "
            f"shape={shape}, received {n_pixels}"
        )
    return height, width


def _columns(history: Mapping[str, Sequence[float | None]] | HasRecords) -> dict[str, NDArray[np.float64]]:
    """One float array per name, NaN where there is no number; names without any number are left out."""
    if isinstance(history, Mapping):
        table: dict[str, Sequence[Any]] = dict(history)
        lengths = {name: len(values) for name, values in table.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"curves: expected sequences of one length, received {lengths}")
    else:
        found = dict.fromkeys(name for record in history.records for name in record)
        table = {name: [record.get(name) for record in history.records] for name in found}
    columns = {}
    for name, values in table.items():
        numbers = [float(v) if isinstance(v, int | float | np.number) else math.nan for v in values]
        if not all(map(math.isnan, numbers)):
            columns[name] = np.array(numbers)
    return columns


# --- drawing ------------------------------------------------------------------------------------------------


def _new_figure(width: float, height: float, **options: Any) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, **options)
    FigureCanvasAgg(figure)
    return figure


def _saved(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        figure.savefig(path)
    return figure


def _sheet(
    images: NDArray[np.float64],
    columns: int | None,
    title: str | None,
    scale: ScalarMappable | None = None,
    label: str = "",
    *,
    extend: bool = False,
    gap: int = _GAP,
) -> Figure:
    """Draw images (n, h, w, 3) in a grid, its pixels those of the file, with a title and a colour scale beside."""
    canvas = _tiled(images, columns, gap)
    height, width = canvas.shape[:2]
    figure = _new_figure(width, height)
    heading = figure.text(0.5, 0.0, title or "", ha="center", va="top", fontsize=11)
    extent = heading.get_window_extent()
    bar = 0 if scale is None else 150
    full_width = math.ceil(max(width + bar, extent.width)) + 2 * _MARGIN
    full_height = height + 2 * _MARGIN + (math.ceil(extent.height) + _MARGIN // 2 if title else 0)
    figure.set_size_inches(full_width / _DPI, full_height / _DPI)
    heading.set_position((0.5, 1 - _MARGIN / full_height))

    def axes(left: int, width: int, height: int) -> Axes:
        return figure.add_axes(
            (left / full_width, _MARGIN / full_height, width / full_width, height / full_height)
        )

    left = (full_width - width - bar) // 2
    sheet = axes(left, width, height)
    sheet.imshow(canvas, interpolation="nearest", aspect="auto")
    sheet.set_axis_off()
    if scale is not None:
        ends = "both" if extend else "neither"
        beside = axes(left + width + 24, 24, height - 24)  # room above for a power of ten
        figure.colorbar(scale, cax=beside, label=label, extend=ends)
    return figure


def _tiled(images: NDArray[np.float64], columns: int | None, gap: int) -> NDArray[np.uint8]:
    """Magnify images (n, h, w, 3) of 0..1 and put them into one of 0..255, line by line, framed in grey."""
    n, height, width = images.shape[:3]
    n_columns = min(n, columns if columns is not None else math.ceil(math.sqrt(n * height / width)))
    n_lines = math.ceil(n / n_columns)
    zoom = min(max(1, _SHEET // max(n_columns * width, n_lines * height)), _ZOOM)
    height, width = zoom * height, zoom * width
    canvas = np.full((n_lines * (height + gap) + gap, n_columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, image in enumerate(np.rint(images * 255).astype(np.uint8)):
        top, left = i // n_columns * (height + gap), i % n_columns * (width + gap)
        canvas[top : top + height + 2 * gap, left : left + width + 2 * gap] = _GAP_GREY
        inside = np.s_[top + gap : top + gap + height, left + gap : left + gap + width]
        canvas[inside] = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return canvas


def _panels(
    panels: dict[str, dict[str, NDArray[np.float64]]],
    x: NDArray[np.float64] | None,
    x_label: str,
    title: str | None,
) -> Figure:
    """Draw one Axes per quantity, one line per split."""
    from matplotlib.ticker import MaxNLocator

    n_columns = min(len(panels), 2 if len(panels) == 4 else 3)
    n_lines = math.ceil(len(panels) / n_columns)
    figure = _new_figure(600 * n_columns, 420 * n_lines + (50 if title else 0), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12)
    for i, (quantity, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(n_lines, n_columns, i)
        for split, y in lines.items():
            at = np.arange(1.0, len(y) + 1) if x is None else x
            drawn = np.isfinite(y) & np.isfinite(at)
            marker = "o" if drawn.sum() <= 30 else None
            axes.plot(at[drawn], y[drawn], color=_COLORS[split], label=split, marker=marker, markersize=3.5)
        axes.set_title(_LABELS.get(quantity, quantity.replace("_", " ")), loc="left", fontsize=10)
        axes.set_xlabel(x_label)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.ticklabel_format(axis="y", useOffset=False)
        if x is None or (x[np.isfinite(x)] % 1 == 0).all():
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=9)
    return figure
