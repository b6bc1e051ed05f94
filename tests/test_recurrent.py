"""LSTMs beyond their rows of the grid: gradients through the tape, what sees what, PyTorch's, the layer."""

import re

import numpy as np
import pytest
from reference import recurrent as truth
from reference.differences import curvature, derivatives, dot, slope
from reference.rounding import U

import gencore as gc
from gencore.kernels import recurrent


def float32(rng, *shape, scale=1.0):
    return rng.normal(0, scale, shape).astype(np.float32)


# --- gradients ------------------------------------------------------------------------------------------------


class Exact:
    """The functions of `gencore.kernels.recurrent` in float64, as functions of the same arguments."""

    @staticmethod
    def lstm(*arguments):
        h, c, _, _ = truth.lstm(*arguments)
        return h.value, c.value

    @staticmethod
    def map_lstm(z, w, path):
        return truth.map_lstm(z, w, path)[0].value

    @staticmethod
    def masked(x, w, b):
        """A convolution along the row, of the columns up to this one."""
        half = w.shape[1] // 2
        padded = np.pad(x, ((0, 0), (0, 0), (half, 0), (0, 0)))
        return b + sum(padded[:, :, j : j + x.shape[2]] @ w[0, j] for j in range(half + 1))

    @staticmethod
    def row_lstm(x, w_input, w_state, b):
        return Exact.map_lstm(Exact.masked(x, w_input, b), w_state[None], "rows")

    @staticmethod
    def diagonal_lstm(x, w_input, w_state, b):
        return Exact.map_lstm(x @ w_input + b, w_state[None], "diagonals")

    @staticmethod
    def diagonal_bilstm(x, w_input, w_state, b):
        h = Exact.map_lstm(x @ w_input + b, w_state, "diagonals")
        units = h.shape[-1] // 2
        h[:, 1:, :, :units] += h[:, :-1, :, units:]
        return h[..., :units]


def problem(name):
    """Arguments, and a scalar function of what a module's function gives for them."""
    rng = np.random.default_rng(len(name))
    if name == "lstm":
        d, h = 3, 5
        shapes = ((2, 4, d), (d, 4 * h), (h, 4 * h), (4 * h,), (2, h), (2, h))
        args = [float32(rng, *shape, scale=0.6) for shape in shapes]
        of_h, of_c = float32(rng, 2, 4, h), float32(rng, 2, h)

        def loss(m, *a):
            y, c = m.lstm(*a)
            return np.sum(of_h * y + 0.5 * y * y) + np.sum(of_c * c)

        return args, loss
    units, channels = 4, 3
    inputs, states, columns = {
        "row_lstm": ((1, 3, channels), (3, units), 4 * units),
        "diagonal_lstm": ((channels,), (2, units), 4 * units),
        "diagonal_bilstm": ((channels,), (2, 2, units), 8 * units),
    }[name]
    shapes = ((2, 3, 4, channels), (*inputs, columns), (*states, 4 * units), (columns,))
    args = [float32(rng, *shape, scale=0.6) for shape in shapes]
    of_h = float32(rng, 2, 3, 4, units)

    def loss(m, *a):
        y = getattr(m, name)(*a)
        return np.sum(of_h * y + 0.5 * y * y)

    return args, loss


@pytest.mark.parametrize("name", ["lstm", "row_lstm", "diagonal_lstm", "diagonal_bilstm"])
def test_first_and_second_derivatives(name):
    """Along random directions of all arguments, against differences of the float64 definition."""
    args, loss = problem(name)
    rng = np.random.default_rng(8)
    d, e = ([float32(rng, *a.shape, scale=0.3) for a in args] for _ in range(2))
    first, second = derivatives(lambda *a: loss(recurrent, *a), args, d)
    for found, expected, along in (
        (first, slope(lambda *a: loss(Exact, *a), args, d), d),
        (second, curvature(lambda *a: loss(Exact, *a), args, d, e), e),
    ):
        # Sums of some 100 terms for each of some 10 steps that errors pass through.
        terms = sum(float(np.abs(a.numpy() * step).sum()) for a, step in zip(found, along, strict=True))
        assert abs(expected) > 1e-3 * terms  # far above what is allowed
        assert abs(dot(found, along) - expected) <= 500 * U * terms


def test_gradients_that_nobody_asks_for():
    """Only c, only one argument, states as arrays: the same as of all arguments at once."""
    args, _ = problem("lstm")
    leaves = [gc.tensor(a, requires_grad=True) for a in args]
    everything = gc.grad(np.sum(recurrent.lstm(*leaves)[1]), leaves)
    for i, leaf in enumerate(leaves):
        mixed = [leaf if k == i else a for k, a in enumerate(args)]
        (alone,) = gc.grad(np.sum(recurrent.lstm(*mixed)[1]), [leaf])
        np.testing.assert_array_equal(alone.numpy(), everything[i].numpy())


@pytest.mark.parametrize(("path", "sweeps", "taps", "reach"), [("rows", 1, 3, 3), ("diagonals", 2, 2, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_fused_op_is_its_parts(path, sweeps, taps, reach, groups):
    """`lstm_of_map`, which turns sums into gates in place, is `map_lstm` of `input_to_state`; gradients to rounding."""
    rng = np.random.default_rng(13)
    channels, units = 4, 6
    x = float32(rng, 3, 4, 5, channels)
    w_input = float32(rng, 1, reach, channels, 4 * sweeps * units, scale=0.5)
    w_state = float32(rng, sweeps, taps, units, 4 * units, scale=0.5)
    bias, g = float32(rng, 4 * sweeps * units), float32(rng, 3, 4, 5, sweeps * units)

    def fused(x, w_input, w_state, bias):
        return recurrent.lstm_of_map(x, w_input, w_state, bias, path, channel_groups=groups)

    def parts(x, w_input, w_state, bias):
        z = recurrent.input_to_state(x, w_input, bias, sweeps=sweeps, channel_groups=groups)
        return recurrent.map_lstm(z, w_state, path)

    arrays = x, w_input, w_state, bias
    found = []
    for function in (fused, parts):
        leaves = [gc.tensor(a, requires_grad=True) for a in arrays]
        h = function(*leaves)
        found.append([h, *gc.grad(np.sum(g * h), leaves)])
        np.testing.assert_array_equal(function(*arrays), h.numpy())
        again = gc.grad(np.sum(g * function(*leaves)), leaves, create_graph=True)
        squares = sum((np.sum(part * part) for part in again[1:]), np.sum(again[0] * again[0]))
        found[-1] += gc.grad(squares, leaves)
    np.testing.assert_array_equal(found[0][0].numpy(), found[1][0].numpy())
    for a, b in zip(*found, strict=True):
        # Sums of some hundred terms, each of a few roundings.
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=100 * U * np.abs(b.numpy()).max())


# --- what sees what -------------------------------------------------------------------------------------------


def seen_from(function, shape, pixel, group=slice(None)):
    """Where the gradient of a pixel's result by the map is not 0."""
    x = gc.tensor(float32(np.random.default_rng(3), 1, *shape), requires_grad=True)
    out = function(x)
    (grad,) = gc.grad(np.sum(out[0, pixel[0], pixel[1], group]), [x])
    return grad.numpy()[0] != 0


@pytest.mark.parametrize("pixel", [(0, 0), (2, 3), (3, 0), (4, 6), (3, 5)])
def test_row_lstm_sees_a_triangle(pixel):
    height, width, channels, units = 5, 7, 2, 3
    rng = np.random.default_rng(4)
    weights = (
        float32(rng, 1, 3, channels, 4 * units),
        float32(rng, 3, units, 4 * units),
        float32(rng, 4 * units),
    )
    seen = seen_from(lambda x: recurrent.row_lstm(x, *weights), (height, width, channels), pixel)
    y, x = np.indices((height, width))
    up = pixel[0] - y
    # One column more to the left: each row's states see their left neighbour.
    triangle = (up >= 0) & (x <= pixel[1] + up) & (x >= pixel[1] - up - 1)
    np.testing.assert_array_equal(seen.all(2), triangle)
    np.testing.assert_array_equal(seen.any(2), triangle)


@pytest.mark.parametrize("pixel", [(0, 0), (2, 3), (3, 0), (4, 6), (0, 5)])
@pytest.mark.parametrize("both", [False, True])
def test_diagonals_see_everything_before(both, pixel):
    height, width, channels, units = 5, 7, 2, 3
    rng = np.random.default_rng(5)
    k = 2 if both else 1
    state = (2, 2, units, 4 * units) if both else (2, units, 4 * units)
    weights = float32(rng, channels, 4 * k * units), float32(rng, *state), float32(rng, 4 * k * units)
    function = recurrent.diagonal_bilstm if both else recurrent.diagonal_lstm
    seen = seen_from(lambda x: function(x, *weights), (height, width, channels), pixel)
    y, x = np.indices((height, width))
    before = (y < pixel[0]) | ((y == pixel[0]) & (x <= pixel[1]))
    if not both:
        before &= x <= pixel[1]
    np.testing.assert_array_equal(seen.all(2), before)
    np.testing.assert_array_equal(seen.any(2), before)


@pytest.mark.parametrize("name", ["row_lstm", "diagonal_lstm", "diagonal_bilstm"])
def test_colours_see_earlier_colours_of_their_pixel(name):
    """Units of colour k see channels of colours up to k here, and all colours of pixels before."""
    groups, channels, units, pixel = 3, 6, 9, (2, 1)
    rng = np.random.default_rng(6)
    k = 2 if name == "diagonal_bilstm" else 1
    w_input = (1, 3, channels, 4 * units) if name == "row_lstm" else (channels, 4 * k * units)
    w_state = {"row_lstm": (3, units), "diagonal_lstm": (2, units), "diagonal_bilstm": (2, 2, units)}[name]
    weights = (
        float32(rng, *w_input),
        float32(rng, *w_state, 4 * units, scale=0.5),
        float32(rng, 4 * k * units),
    )
    function = getattr(recurrent, name)
    for colour in range(groups):
        part = slice(colour * units // groups, (colour + 1) * units // groups)
        seen = seen_from(
            lambda x: function(x, *weights, channel_groups=groups), (4, 3, channels), pixel, part
        )
        here = np.arange(channels) // (channels // groups) <= colour
        np.testing.assert_array_equal(seen[pixel], here)
        assert seen[1, :2].all()
        assert seen[1, 2].all() == (name != "diagonal_lstm")
        assert not seen[2, 2:].any()
        assert not seen[3].any()


def test_one_group_is_no_group_where_weights_are_zero():
    """Two groups, with weights across them that one group could use at 0, give one group's result."""
    channels, units = 4, 6
    rng = np.random.default_rng(7)
    x = float32(rng, 2, 3, 4, channels)
    weights = [float32(rng, channels, 4 * units), float32(rng, 2, units, 4 * units), float32(rng, 4 * units)]
    grouped = recurrent.diagonal_lstm(x, *weights, channel_groups=2)
    column = np.arange(4 * units) % units // (units // 2)
    weights[0][np.arange(channels)[:, None] // 2 > column] = 0
    np.testing.assert_allclose(grouped, recurrent.diagonal_lstm(x, *weights), atol=1e-6)


# --- steps ----------------------------------------------------------------------------------------------------


def test_a_sequence_in_parts_is_the_sequence():
    args, _ = problem("lstm")
    x, *weights, h0, c0 = args
    whole, last = recurrent.lstm(x, *weights, h0, c0)
    first, c = recurrent.lstm(np.ascontiguousarray(x[:, :2]), *weights, h0, c0)
    second, c = recurrent.lstm(
        np.ascontiguousarray(x[:, 2:]), *weights, np.ascontiguousarray(first[:, -1]), c
    )
    np.testing.assert_array_equal(np.concatenate([first, second], 1), whole)
    np.testing.assert_array_equal(c, last)


def test_cells_are_the_step_of_the_sweeps():
    """h w by a product of its own, and `lstm_cell`: bit for bit those of a map, as cached sampling needs it."""
    rng = np.random.default_rng(9)
    units, width = 19, 6
    z, w = float32(rng, 3, 2, width, 4 * units), float32(rng, 1, 3, units, 4 * units, scale=0.2)
    h = recurrent.map_lstm(z, w, "rows")
    zeros = np.zeros((3, units), np.float32)
    cells = [recurrent.lstm_cell(np.ascontiguousarray(z[:, 0, x]), np.zeros((3, 4 * units), np.float32), zeros)
             for x in range(width)]  # fmt: skip
    np.testing.assert_array_equal(np.stack([c[0] for c in cells], 1), h[:, 0])
    padded = np.pad(h[:, 0], ((0, 0), (1, 1), (0, 0)))
    for x in range(width):
        met = np.ascontiguousarray(padded[:, x : x + 3].reshape(3, 3 * units))
        state = gc.kernels.dense.matmul(met, w.reshape(3 * units, 4 * units))
        found, _ = recurrent.lstm_cell(np.ascontiguousarray(z[:, 1, x]), state, cells[x][1])
        np.testing.assert_array_equal(found, h[:, 1, x])


def test_extreme_sums_saturate():
    z = np.full((1, 1, 1, 4), 1e30, np.float32)
    w = np.zeros((1, 3, 1, 4), np.float32)
    assert recurrent.map_lstm(z, w, "rows")[0, 0, 0, 0] == pytest.approx(np.tanh(1.0), rel=2 * U)
    assert recurrent.map_lstm(-z, w, "rows")[0, 0, 0, 0] == 0
    assert np.isnan(recurrent.map_lstm(z * np.nan, w, "rows")).all()


# --- the layer ------------------------------------------------------------------------------------------------


def test_layer_is_torchs(torch):
    rng = np.random.default_rng(10)
    layer = gc.nn.LSTM(3, 5, 2, key=1)
    theirs = torch.nn.LSTM(3, 5, 2, batch_first=True)
    with torch.no_grad():
        for i, part in enumerate(layer.layers):
            getattr(theirs, f"weight_ih_l{i}").copy_(torch.from_numpy(part.weight_ih.numpy().T))
            getattr(theirs, f"weight_hh_l{i}").copy_(torch.from_numpy(part.weight_hh.numpy().T))
            getattr(theirs, f"bias_ih_l{i}").copy_(torch.from_numpy(part.bias.numpy()))
            getattr(theirs, f"bias_hh_l{i}").zero_()
    x, h0, c0 = float32(rng, 4, 6, 3), float32(rng, 2, 4, 5), float32(rng, 2, 4, 5)
    g = float32(rng, 4, 6, 5)
    h, (h_n, c_n) = layer(x, (h0, c0))
    np.sum(g * h).backward()
    y, (their_h, their_c) = theirs(torch.from_numpy(x), (torch.from_numpy(h0), torch.from_numpy(c0)))
    y.backward(torch.from_numpy(g))
    for found, expected in ((h, y), (h_n, their_h), (c_n, their_c)):
        np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), atol=2e-6)
    for i, part in enumerate(layer.layers):
        for ours, name in (
            (part.weight_ih, "weight_ih"),
            (part.weight_hh, "weight_hh"),
            (part.bias, "bias_ih"),
        ):
            expected = getattr(theirs, f"{name}_l{i}").grad.numpy().T
            np.testing.assert_allclose(ours.grad.numpy(), expected, atol=2e-5)


def test_layer_goes_on_from_a_state():
    layer = gc.nn.LSTM(2, 4, 3, bias=False, key=2)
    x = float32(np.random.default_rng(11), 3, 7, 2)
    whole, (h_n, c_n) = layer(x)
    first, state = layer(np.ascontiguousarray(x[:, :3]))
    second, (h_end, c_end) = layer(np.ascontiguousarray(x[:, 3:]), state)
    np.testing.assert_array_equal(np.concatenate([first.numpy(), second.numpy()], 1), whole.numpy())
    np.testing.assert_array_equal(h_end.numpy(), h_n.numpy())
    np.testing.assert_array_equal(c_end.numpy(), c_n.numpy())
    assert [name for name, _ in layer.named_parameters()] == [
        f"layers.{i}.weight_{part}" for i in range(3) for part in ("ih", "hh")
    ]


def test_layer_learns_to_add():
    """Whether an odd number of ones came so far: which takes a state."""
    rng = np.random.default_rng(12)
    layer, head = gc.nn.LSTM(1, 8, key=3), gc.nn.Linear(8, 1, key=4)
    optimizer = gc.optim.Adam([*layer.parameters(), *head.parameters()], lr=2e-2)
    for _ in range(250):
        x = (rng.random((64, 6, 1)) < 0.5).astype(np.float32)
        target = (np.cumsum(x, 1) % 2).astype(np.uint8)
        logits = head(layer(x)[0])
        log_prob = gc.kernels.dense.bernoulli_log_prob(logits.reshape(64, 6), target.reshape(64, 6))
        loss = -np.mean(log_prob)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.3 * 6 * np.log(2)


def ones(*shape):
    return np.ones(shape, np.float32)


ROW = ones(1, 2, 2, 2), ones(1, 3, 2, 12), ones(3, 3, 12), ones(12)  # arguments of a Row LSTM of 3 units


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gc.nn.LSTM(0, 3), "LSTM: expected n_in to be an integer of at least 1, received 0"),
        (lambda: gc.nn.LSTM(2, 3)(np.zeros((4, 5, 3), np.float32)),
         "recurrent.lstm: expected w_input of shape (3, 12)"),
        (lambda: gc.nn.LSTM(2, 3)(np.zeros((4, 5, 2), np.float32), (np.zeros((1, 4, 2)),) * 2),
         "LSTM: expected h of shape (1, 4, 3), received (1, 4, 2)"),
        (lambda: recurrent.map_lstm(np.zeros((1, 1, 1, 4), np.float32), np.zeros((1, 2, 1, 4), np.float32), "columns"),
         "recurrent.map_lstm: expected path to be 'rows' or 'diagonals', received 'columns'"),
        (lambda: recurrent.row_lstm(np.zeros((1, 2, 2, 2), np.float32), np.zeros((1, 3, 2, 12), np.float32),
                                    np.zeros((3, 3, 12), np.float32), np.zeros(12, np.float32), channel_groups=2),
         "recurrent.row_lstm: expected the units to be a multiple of channel_groups, 2, received 3"),
        (lambda: recurrent.map_lstm(ones(1, 2, 2, 24), ones(2, 2, 6, 24), "diagonals"),
         "recurrent.map_lstm: expected z of shape (1, 2, 2, 48), the images of the states and the gates of weight"),
        (lambda: recurrent.row_lstm(ones(1, 2, 2, 2), ones(3, 3, 2, 12), *ROW[2:]),
         "recurrent.row_lstm: expected w_input of shape (1, k, 2, 4 F), received shape (3, 3, 2, 12)"),
        (lambda: recurrent.lstm_of_map(ROW[0], ones(3, 3, 2, 12), ones(1, 3, 3, 12), ROW[3], "rows"),
         "recurrent.lstm_of_map: expected w_input of shape (1, k, 2, 4 F), received shape (3, 3, 2, 12)"),
        (lambda: recurrent.input_to_state(ROW[0], ones(3, 3, 2, 12), ROW[3]),
         "recurrent.input_to_state: expected weight of shape (1, k, 2, 4 F), received shape (3, 3, 2, 12)"),
        (lambda: recurrent.lstm_of_map(*ROW[:2], ones(1, 3, 3, 12), ROW[3], ["rows"]),
         "recurrent.lstm_of_map: expected path to be 'rows' or 'diagonals', received ['rows']"),
        *((lambda groups=groups: recurrent.row_lstm(*ROW, channel_groups=groups),
           f"recurrent.row_lstm: expected channel_groups to be an integer of at least 1, received {groups}")
          for groups in (0, -2)),
        (lambda: recurrent.row_lstm(*ROW[:3], None), "row_lstm: expected bias of shape (12,), received NoneType"),
        (lambda: recurrent.row_lstm(ROW[0], [1], *ROW[2:]), "row_lstm: expected w_input of shape (1, k, 2, 4 F)"),
        (lambda: recurrent.row_lstm(*ROW[:2], [1], ROW[3]), "row_lstm: expected w_state of shape (taps, F, 4F)"),
        (lambda: recurrent.row_lstm(*ROW[:2], ones(3, 3, 11), ROW[3]),
         "recurrent.row_lstm: expected w_state of 12 columns, four gates of its units, received 11"),
        (lambda: recurrent.row_lstm(ROW[0], ones(1, 3, 2, 16), ROW[2], ones(16)),
         "recurrent.row_lstm: expected w_input of 12 columns, the gates of w_state, received 16"),
        (lambda: recurrent.diagonal_lstm(ROW[0], ones(2, 12), ones(3, 3, 12), ROW[3]),
         "recurrent.diagonal_lstm: expected w_state of shape (2, F, 4F), received shape (3, 3, 12)"),
        (lambda: recurrent.diagonal_bilstm(ones(1, 2, 2, 4), ones(4, 24), ones(1, 2, 6, 24), ones(24)),
         "recurrent.diagonal_bilstm: expected w_state of shape (2, 2, F, 4F), received shape (1, 2, 6, 24)"),
        (lambda: recurrent.diagonal_bilstm(ones(1, 2, 2, 4), ones(4, 24), ones(2, 2, 6, 24), ones(24)),
         "recurrent.diagonal_bilstm: expected w_input of 48 columns, the gates of w_state, received 24"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


@pytest.mark.parametrize("kind", [np.asarray, gc.tensor])
@pytest.mark.parametrize("name", ["w_input", "w_state"])
def test_weights_of_a_map_are_float32(kind, name):
    arguments = dict(zip(("x", "w_input", "w_state", "bias"), map(kind, ROW), strict=True))
    arguments[name] = kind(arguments[name].astype(np.float64))
    with pytest.raises(TypeError, match=rf"recurrent\.row_lstm: expected {name} of dtype float32"):
        recurrent.row_lstm(**arguments)


@pytest.mark.parametrize("kind", [np.asarray, gc.tensor])
@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("input_sums", ones(3, 40), "of shape (3, 24), four gates of c, received (3, 40)"),
        ("state_sums", ones(1, 24), "of shape (3, 24), four gates of c, received (1, 24)"),
        ("state_sums", np.ones((3, 24)), "of dtype float32"),
        ("c", ones(6), "to have 2 dimensions, received shape (6,)"),
        ("c", np.ones((3, 6)), "of dtype float32"),
    ],
)
def test_wrong_parts_of_a_cell_are_named_whatever_they_are(kind, name, array, words):
    arguments = {"input_sums": ones(3, 24), "state_sums": ones(3, 24), "c": ones(3, 6), name: array}
    with pytest.raises(
        (ValueError, TypeError), match=re.escape(f"recurrent.lstm_cell: expected {name} {words}")
    ):
        recurrent.lstm_cell(**{n: kind(a) for n, a in arguments.items()})


def test_derivatives_of_a_cell():
    """Of strided Tensors, too; along random directions, to the rounding of some 20 operations."""
    rng = np.random.default_rng(13)
    args = [float32(rng, 3, 24), float32(rng, 24, 3), float32(rng, 3, 6)]
    of_h, of_c = float32(rng, 3, 6), float32(rng, 3, 6)

    def loss(h, c):
        return np.sum(of_h * h + 0.5 * h * h) + np.sum(of_c * c)

    def exact(a, b, c):
        i, f, g, o = np.split(a + b.T, 4, axis=1)
        after = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        return loss(np.tanh(after) / (1 + np.exp(-o)), after)

    leaves = [gc.tensor(a, requires_grad=True) for a in args]
    h, c = recurrent.lstm_cell(leaves[0], leaves[1].T, leaves[2])
    plain_h, plain_c = recurrent.lstm_cell(args[0], np.ascontiguousarray(args[1].T), args[2])
    assert np.array_equal(h.numpy(), plain_h)
    assert np.array_equal(c.numpy(), plain_c)
    arrays = [a.astype(np.float64) for a in args]
    d, e = ([float32(rng, *a.shape) for a in arrays] for _ in "de")
    first = gc.grad(loss(h, c), leaves, create_graph=True)
    along = sum(np.sum(g * v) for g, v in zip(first, d, strict=True))
    second = gc.grad(along, leaves)
    found = sum(float(np.sum(s.numpy().astype(np.float64) * v)) for s, v in zip(second, e, strict=True))
    size = sum(float(np.sum(np.abs(g.numpy() * v))) for g, v in zip(first, d, strict=True))
    assert abs(float(along.numpy()) - slope(exact, arrays, d)) <= 40 * U * size
    assert found == pytest.approx(curvature(exact, arrays, d, e), rel=1e-4, abs=1e-4)
