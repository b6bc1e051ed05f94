"""Pictures: what the pixels show is what was given; nothing is cut off; wrong shapes are named."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from gencore import plot

GREY = 154  # of the lines between images


def cells(path, n, shape):
    """Cut a sheet along its grey lines; undo the magnification, which must be whole. The images in reading order."""
    png = np.rint(imread(path)[..., :3] * 255).astype(int)
    line = (png == GREY).all(-1)
    top, left = np.argwhere(line)[0]
    # The first line and the first column of images are always full, and 20 pixels reach into an image.
    rows = spans(~line[:, left : left + 20].all(1), start=top)
    columns = spans(~line[top : top + 20].all(0), start=left)
    height, width = shape
    images = []
    for top, bottom in rows:
        for left, right in columns:
            zoom = (bottom - top) // height
            assert (bottom - top, right - left) == (zoom * height, zoom * width)
            block = png[top:bottom, left:right].reshape(height, zoom, width, zoom, 3)
            assert (block == block[:, :1, :, :1]).all(), "pixels of one image pixel differ"
            images.append(block[:, 0, :, 0])
    assert len(rows) == -(-n // len(columns))
    for blank in images[n:]:
        assert (blank == 255).all()
    return images[:n], len(columns)


def spans(inside, start):
    """Runs of True between runs of False, from `start` to the last False."""
    edges = np.flatnonzero(np.diff(inside[start:].astype(int))) + start + 1
    return [(edges[i], edges[i + 1]) for i in range(0, len(edges) - 1, 2)]


def assert_nothing_cut_off(figure):
    figure.draw_without_rendering()
    needed, page = figure.get_tightbbox(), figure.get_size_inches()
    assert min(needed.x0, needed.y0) >= 0, needed
    assert needed.x1 <= page[0], needed
    assert needed.y1 <= page[1], needed


RNG = np.random.default_rng(1)


@pytest.mark.parametrize(
    ("X", "shape", "white"),
    [
        (RNG.integers(0, 2, (10, 64), dtype=np.uint8), (8, 8), 1),
        (RNG.integers(0, 2, (5, 12)).astype(bool), (3, 4), 1),
        (RNG.integers(0, 17, (7, 6, 9), dtype=np.uint8), (6, 9), 16),
        (RNG.random((1, 25)).astype(np.float32), (5, 5), 1),
        (RNG.random((9, 28 * 28)), (28, 28), 1),
        (RNG.integers(0, 256, (30, 4, 4, 1)), (4, 4), 255),
    ],
)
def test_samples_show_their_pixels(tmp_path, X, shape, white):
    X.flat[0], X.flat[1] = white, 0
    X[np.abs(X / white * 255 - GREY) < 2] = 0
    drawn = plot.samples(X, tmp_path / "s.png", shape=shape)
    images, _ = cells(tmp_path / "s.png", len(X), shape)
    # A PNG has 256 steps: half a step of rounding.
    for image, row in zip(images, X, strict=True):
        np.testing.assert_allclose(
            image, np.repeat(row.reshape(*shape, 1) / white * 255, 3, axis=2), atol=0.501
        )
    assert_nothing_cut_off(drawn)


def test_samples_in_colour_and_below_zero(tmp_path):
    X = RNG.random((4, 3, 5, 3))
    plot.samples(X, tmp_path / "c.png")
    np.testing.assert_allclose(cells(tmp_path / "c.png", 4, (3, 5))[0], X * 255, atol=0.501)
    X = RNG.choice([-3.5, -2.0, -0.25, 0.0, 0.75, 2.5], size=(4, 16))
    plot.samples(X, tmp_path / "n.png")
    expected = (X - X.min()) / (X.max() - X.min()) * 255
    np.testing.assert_allclose(
        np.array(cells(tmp_path / "n.png", 4, (4, 4))[0])[..., 0].reshape(4, 16), expected, atol=0.501
    )


@pytest.mark.parametrize(
    ("columns", "count", "shown", "width"), [(3, 100, 11, 3), (20, 100, 11, 11), (None, 4, 4, 2)]
)
def test_samples_layout(tmp_path, columns, count, shown, width):
    X = np.eye(16)[:11]
    plot.samples(X, tmp_path / "s.png", columns=columns, count=count)
    images, n_columns = cells(tmp_path / "s.png", shown, (4, 4))
    assert n_columns == width
    np.testing.assert_array_equal([image[..., 0].argmax() for image in images], np.arange(shown))


@pytest.mark.parametrize("n", [6, 5])
def test_without_a_frame_images_touch(tmp_path, n):
    X = RNG.random((n, 4, 5))
    drawn = plot.samples(X, tmp_path / "t.png", columns=3, framed=False)
    png = np.rint(imread(tmp_path / "t.png")[..., 0] * 255)
    sheet = png[18:-18, 18:-18]  # the margin
    zoom = sheet.shape[0] // 8
    assert sheet.shape == (8 * zoom, 15 * zoom)
    whole = np.ones((6, 4, 5))
    whole[:n] = X
    expected = whole.reshape(2, 3, 4, 5).transpose(0, 2, 1, 3).reshape(8, 15)
    np.testing.assert_allclose(sheet, np.kron(expected, np.ones((zoom, zoom))) * 255, atol=0.501)
    assert (png[:18] == 255).all()
    assert (png[:, :18] == 255).all()
    assert_nothing_cut_off(drawn)


def test_sheets_have_a_size_for_a_page(tmp_path):
    for n, d in [(1, 4), (100, 64), (100, 784), (400, 784), (3, 64)]:
        plot.samples(np.zeros((n, d)), tmp_path / "s.png", count=400)
        height, width = imread(tmp_path / "s.png").shape[:2]
        assert max(height, width) <= 1000
    assert min(height, width) >= 8 * 24  # three small images are still to be seen


@pytest.mark.parametrize("shape", [None, (4, 9)])
def test_filters_by_norm_with_zero_white(tmp_path, shape):
    weight = RNG.normal(size=(36, 7)) * np.array([0.1, 3, 0.5, 2, 1, 0.2, 2.5])
    weight[:5] = 0
    drawn = plot.filters(weight, tmp_path / "f.png", shape=shape, title="")
    images, _ = cells(tmp_path / "f.png", 7, shape or (6, 6))
    for image, column in zip(images, [1, 6, 3, 4, 2, 5, 0], strict=True):
        red, green, blue = image.reshape(36, 3).T
        w = weight[:, column]
        assert np.ptp(image.reshape(36, 3)[:5], axis=1).max() <= 2  # white to one of 256 colours
        assert green[:5].min() > 240
        strong = np.abs(w) > 0.1
        np.testing.assert_array_equal((red > blue)[strong], (w > 0)[strong])
        np.testing.assert_array_equal((red < blue)[strong], (w < 0)[strong])
        # Along each side, the greater the weight, the less green.
        for side in (w > 0, w < 0):
            order = np.argsort(np.abs(w[side]))
            assert (np.diff(green[side][order]) <= 0).all()
    assert_nothing_cut_off(drawn)


def test_filters_scale_is_common_symmetric_and_labelled(tmp_path):
    weight = np.zeros((16, 3))
    weight[0] = [1.0, -1.0, 0.5]
    weight[1] = [0.5, -0.5, 1e-3]
    drawn = plot.filters(weight, tmp_path / "f.png", title="")
    images, _ = cells(tmp_path / "f.png", 3, (4, 4))
    np.testing.assert_array_equal(images[0][0, 1], images[2][0, 0])  # 0.5 is one colour in every filter
    bar = drawn.axes[1]
    assert bar.get_ylabel() == "weight"
    low, high = bar.get_ylim()
    assert low == -high
    # 99.5 % of 48 weights: between the largest two, of magnitude 1.
    assert high == pytest.approx(1.0)
    drawn = plot.filters(weight)
    assert "3 filters" in [text.get_text() for text in drawn.texts]
    drawn = plot.filters(RNG.normal(size=(16, 30)), count=10)
    assert "10 of 30 filters, largest norm first" in [text.get_text() for text in drawn.texts]
    plot.filters(np.zeros((16, 3)))  # untrained: no scale to divide by


HISTORY = {
    "epoch": [1, 2, 3, 4],
    "step": [10, 20, 30, 40],
    "seconds": [0.1, 0.2, 0.3, 0.4],
    "lr": [0.1, 0.1, 0.1, 0.1],
    "pseudo_log_likelihood": [-90.0, -80.0, -75.0, -73.0],
    "validation_pseudo_log_likelihood": [None, -82.0, None, -76.0],
    "reconstruction_error": [0.5, 0.4, 0.3, 0.25],
}


class Fitted:
    def __init__(self, columns):
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self.records = [{k: v for k, v in row.items() if v is not None} for row in rows]


@pytest.mark.parametrize("history", [HISTORY, Fitted(HISTORY)], ids=["mapping", "records"])
def test_curves_hold_the_history(history):
    first, second = plot.curves(history).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in first.get_lines()}
    assert lines == {
        "train": [[1, -90], [2, -80], [3, -75], [4, -73]],
        "valid": [[2, -82], [4, -76]],
    }
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["train", "valid"]
    assert first.get_title(loc="left") == "pseudo-log-likelihood (nats per example)"
    assert first.get_xlabel() == "epoch"
    assert second.get_legend() is None
    assert [line.get_xydata()[:, 1].tolist() for line in second.get_lines()] == [
        HISTORY["reconstruction_error"]
    ]


def test_curves_draw_where_the_values_are(tmp_path):
    drawn = plot.curves(
        {"train_loss": [3.0, 1.0, 2.0], "test_loss": [2.5, 1.5, 2.5], "step": [0, 50, 100]},
        tmp_path / "c.png",
    )
    png = imread(tmp_path / "c.png")
    (axes,) = drawn.axes
    for label, (red, green, blue) in {"train": (0x1F, 0x6F, 0xB4), "test": (0x2E, 0x8B, 0x57)}.items():
        line = next(line for line in axes.get_lines() if line.get_label() == label)
        for x, y in axes.transData.transform(line.get_xydata()):
            pixel = png[len(png) - 1 - int(y), int(x), :3] * 255
            np.testing.assert_allclose(pixel, (red, green, blue), atol=2)
    assert axes.get_xlabel() == "step"


def test_curves_choices():
    (axes,) = plot.curves(HISTORY, names=["lr"], x="step").axes
    np.testing.assert_array_equal(
        axes.get_lines()[0].get_xydata(), [[10, 0.1], [20, 0.1], [30, 0.1], [40, 0.1]]
    )
    assert (axes.get_title(loc="left"), axes.get_xlabel()) == ("learning rate", "step")
    (axes,) = plot.curves({"kl": [4.0, 3.0]}).axes
    np.testing.assert_array_equal(axes.get_lines()[0].get_xydata(), [[1, 4], [2, 3]])
    assert axes.get_xlabel() == "record"


@pytest.mark.parametrize("panels", [1, 2, 3, 4, 7])
def test_curves_are_whole_and_apart(panels):
    history = {f"valid_quantity_{i}": [-12345.678 * i, 1e-7, 2e6] for i in range(panels)}
    drawn = plot.curves(history, title="A title of some length\non two lines")
    assert len(drawn.axes) == panels
    assert_nothing_cut_off(drawn)
    boxes = [axes.get_tightbbox() for axes in drawn.axes]
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[i + 1 :])


def test_long_titles_and_scales_are_whole():
    for title in ("A title that is much longer than the picture of one small image is wide", "two\nlines"):
        assert_nothing_cut_off(plot.samples(np.eye(4)[:1], title=title))
        assert_nothing_cut_off(plot.filters(np.eye(4)[:, :1] * 12345.678, title=title))
    for size in (1e-6, 1.5e9):
        assert_nothing_cut_off(plot.filters(np.random.default_rng(0).normal(size=(64, 30)) * size, title=""))


def test_curves_of_a_bound_have_units():
    history = {
        "epoch": [1, 2],
        "loss": [9.0, 8],
        "elbo": [-9.0, -8],
        "reconstruction": [-7.0, -5],
        "kl": [2.0, 3],
    }
    history |= {f"validation_{name}": history[name] for name in ("elbo", "kl")}
    titles = [axes.get_title(loc="left") for axes in plot.curves(history).axes]
    assert [t.split(" (")[0] for t in titles[:2]] == ["loss", "evidence lower bound"]
    assert all(t.endswith("(nats per example)") for t in titles[1:])
    assert len(titles) == 4  # validation in the same panels


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_formats(tmp_path, suffix, start):
    for draw in (lambda p: plot.samples(np.eye(4), p), lambda p: plot.curves(HISTORY, str(p))):
        draw(tmp_path / f"f.{suffix}")
        assert (tmp_path / f"f.{suffix}").read_bytes().startswith(start)


def test_matplotlib_is_imported_when_drawing_and_pyplot_never():
    program = (
        "import sys, numpy, gencore.plot as p\n"
        "assert 'matplotlib' not in sys.modules\n"
        "p.samples(numpy.eye(4)); p.filters(numpy.eye(4)); p.curves({'a': [1.0, 2.0]})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: plot.samples(np.zeros((2, 180))), ValueError, "samples: 180 columns of X .* give shape="),
        (lambda: plot.samples(np.zeros((2, 64)), shape=(8, 9)), ValueError, "8 x 9 = 72 columns in X .* 64"),
        (lambda: plot.samples(np.zeros((2, 4)), shape=(-2, -2)), ValueError, r"shape=\(-2, -2\)"),
        (
            lambda: plot.samples(np.zeros((2, 8, 8)), shape=(8, 9)),
            ValueError,
            r"shape \(8, 9\), .*\(2, 8, 8\)",
        ),
        (lambda: plot.samples(np.zeros((2, 8, 8, 2))), ValueError, r"received \(2, 8, 8, 2\)"),
        (lambda: plot.samples(np.zeros(64)), ValueError, r"received \(64,\)"),
        (lambda: plot.samples(np.zeros((0, 64))), ValueError, r"received \(0, 8, 8\)"),
        (lambda: plot.samples(np.full((2, 4), np.nan)), ValueError, "finite numbers in X"),
        (lambda: plot.samples([["a"]]), TypeError, "numbers in X"),
        (lambda: plot.samples(np.eye(4), columns=0), ValueError, "columns of at least 1, received 0"),
        (lambda: plot.samples(np.eye(4), count=0), ValueError, "count of at least 1, received 0"),
        (lambda: plot.filters(np.zeros((180, 3))), ValueError, "filters: 180 rows of weight .* give shape="),
        (lambda: plot.filters(np.zeros((64, 3)), shape=(3, 3)), ValueError, "3 x 3 = 9 rows in weight .* 64"),
        (lambda: plot.filters(np.zeros(64)), ValueError, r"\(n_visible, n_hidden\), received \(64,\)"),
        (lambda: plot.filters(np.zeros((64, 0))), ValueError, r"received \(64, 0\)"),
        (lambda: plot.filters(np.full((4, 4), np.inf)), ValueError, "finite numbers in weight"),
        (lambda: plot.curves({}), ValueError, "nothing"),
        (lambda: plot.curves(Fitted({"epoch": [1, 2]})), ValueError, "values to draw .* epoch"),
        (lambda: plot.curves({"a": [1], "b": [1, 2]}), ValueError, "one length, .*'a': 1, 'b': 2"),
        (lambda: plot.curves({"a": [1]}, names=["b"]), ValueError, "values of b .* has a"),
        (lambda: plot.curves({"a": [1]}, x="b"), ValueError, "'b' in the history, which has a"),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
