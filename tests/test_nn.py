"""Layers against formulas in float64 and against torch; modules: names, state, strict loading; initial values."""

import sys

import numpy as np
import pytest

import gencore as gc
from gencore import nn
from gencore.nn import init

RNG = np.random.default_rng(20)
U = 2.0**-24  # half a unit in the last place of float32, relative


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def logistic(x):
    return 1 / (1 + np.exp(-x))


EXACT = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "logistic": logistic,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.logaddexp(0, x),
}
SLOPE = {
    "identity": np.ones_like,
    "tanh": lambda x: 1 - np.tanh(x) ** 2,
    "logistic": lambda x: logistic(x) * logistic(-x),
    "relu": lambda x: (x > 0).astype(float),
    "softplus": logistic,
}


# --- layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 3, 7)])
@pytest.mark.parametrize("activation", list(EXACT))
def test_linear_and_its_gradients(shape, activation):
    layer = nn.Linear(shape[-1], 4, activation, key=3)
    with gc.no_grad():
        layer.bias[...] = normal(4)
    x, g = gc.tensor(normal(*shape), requires_grad=True), normal(*shape[:-1], 4)
    out = layer(x)
    np.sum(out * g).backward()
    w, b, x64 = (t.numpy().astype(np.float64) for t in (layer.weight, layer.bias, x))
    pre = x64 @ w + b
    # n_in products and a bias, each rounded, then an activation of slope at most 1 within a few units of its own.
    size = np.abs(x64) @ np.abs(w) + np.abs(b) + 1
    error = (shape[-1] + 10) * U * size
    assert (np.abs(out.numpy() - EXACT[activation](pre)) <= error).all()
    # Slopes change by at most 1 for a unit of `pre` (but relu's, whose pre-activations here keep off 0).
    slope = g * SLOPE[activation](pre)
    slope_error = np.abs(g) * (error + 10 * U)
    rows, slopes, errors = (a.reshape(-1, a.shape[-1]) for a in (x64, slope, slope_error))
    n = len(rows) + 4
    for found, expected, bound in (
        (layer.bias.grad, slopes.sum(0), errors.sum(0) + n * U * np.abs(slopes).sum(0)),
        (layer.weight.grad, rows.T @ slopes, np.abs(rows.T) @ (errors + n * U * np.abs(slopes))),
        (x.grad, slope @ w.T, (slope_error + n * U * np.abs(slope)) @ np.abs(w.T)),
    ):
        assert found.shape == expected.shape
        assert (np.abs(found.numpy() - expected) <= bound).all()


@pytest.mark.parametrize(
    ("layer", "exact", "slope"),
    [(nn.Tanh, "tanh", "tanh"), (nn.Logistic, "logistic", "logistic"), (nn.ReLU, "relu", "relu"),
     (nn.Softplus, "softplus", "softplus")],
)  # fmt: skip
def test_activations(layer, exact, slope):
    x = gc.tensor(np.linspace(-30, 30, 121, dtype=np.float32) + np.float32(0.01), requires_grad=True)
    out = layer()(x)
    np.sum(out).backward()
    x64 = x.numpy().astype(np.float64)
    np.testing.assert_allclose(out.numpy(), EXACT[exact](x64), rtol=8 * U, atol=1e-20)
    # Of 1 - tanh^2 the float32 tanh leaves the absolute error.
    np.testing.assert_allclose(x.grad.numpy(), SLOPE[slope](x64), rtol=16 * U, atol=8 * U)


def test_linear_without_bias_and_with_wrong_arguments():
    layer = nn.Linear(3, 2, bias=False, key=1)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    np.testing.assert_array_equal(layer(np.eye(3, dtype=np.float32)).numpy(), layer.weight.numpy())
    for arguments, named in (((0, 2), "n_in"), ((2, 1.5), "n_out"), ((True, 2), "n_in")):
        with pytest.raises(ValueError, match=f"Linear: expected {named} to be an integer of at least 1"):
            nn.Linear(*arguments)
    with pytest.raises(ValueError, match="activation"):
        nn.Linear(2, 2, "gelu")
    with pytest.raises(ValueError, match="linear"):
        layer(normal(2, 4))


def test_layer_norm_against_torch(torch):
    x, g, weight, bias = normal(4, 3, 9) * 5 + 2, normal(4, 3, 9), normal(9), normal(9)
    ours, theirs = nn.LayerNorm(9, eps=1e-3), torch.nn.LayerNorm(9, eps=1e-3).double()
    a, b = gc.tensor(x, requires_grad=True), torch.tensor(x, dtype=torch.float64, requires_grad=True)
    ours.load_state_dict({"weight": weight, "bias": bias})
    theirs.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    out, expected = ours(a), theirs(b)
    np.sum(out * g).backward()
    (expected * torch.tensor(g)).sum().backward()
    # Deviations of a row are at most some 15 and its std at least 1: a few tens of roundings of numbers below 20.
    bound = {"rtol": 60 * U, "atol": 60 * 20 * U}
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), **bound)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), **bound)
    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), **bound)
    np.testing.assert_allclose(ours.bias.grad.numpy(), theirs.bias.grad.numpy(), **bound)


@pytest.mark.parametrize("shape", [(8, 5), (2, 1, 3, 5)])
def test_batch_norm_against_torch(shape, torch):
    ours, theirs = nn.BatchNorm(5, momentum=0.3), torch.nn.BatchNorm1d(5, momentum=0.3).double()
    # Deviations, gradients and statistics are of size 10 at most; each passes some tens of roundings a batch.
    bound = {"rtol": 100 * U, "atol": 100 * 10 * U}
    for step in range(3):
        x, g = normal(*shape) * 2 + step, normal(*shape)
        a = gc.tensor(x, requires_grad=True)
        b = torch.tensor(x.reshape(-1, 5), dtype=torch.float64, requires_grad=True)
        out, expected = ours(a), theirs(b)
        ours.zero_grad()
        theirs.zero_grad()
        np.sum(out * g).backward()
        (expected * torch.tensor(g.reshape(-1, 5))).sum().backward()
        np.testing.assert_allclose(out.numpy().reshape(-1, 5), expected.detach().numpy(), **bound)
        np.testing.assert_allclose(a.grad.numpy().reshape(-1, 5), b.grad.numpy(), **bound)
        np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), **bound)
        for name in ("running_mean", "running_var"):
            found = getattr(ours, name).numpy()
            np.testing.assert_allclose(found, getattr(theirs, name).numpy(), **bound)
    kept = ours.state_dict()
    ours.eval()
    theirs.eval()
    x = normal(*shape)
    expected = theirs(torch.tensor(x.reshape(-1, 5), dtype=torch.float64)).detach().numpy()
    np.testing.assert_allclose(ours(x).numpy().reshape(-1, 5), expected, **bound)
    assert ours(x[:1]).shape == x[:1].shape, "one row is enough in evaluation"
    for name, value in ours.state_dict().items():
        np.testing.assert_array_equal(value, kept[name])


def test_batch_norm_refuses():
    layer = nn.BatchNorm(3)
    with pytest.raises(ValueError, match="at least 2 rows in training"):
        layer(normal(1, 3))
    for norm in (layer, nn.LayerNorm(3)):
        with pytest.raises(ValueError, match=r"expected x of shape \(\.\.\., 3\), received \(4, 2\)"):
            norm(normal(4, 2))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_its_mean(p):
    layer = nn.Dropout(p, key=11)
    n = 200_000
    out = layer(np.ones((n // 10, 10), np.float32))
    kept = out != 0
    # 4.5 standard deviations of a binomial; the values of those that stay are 1 / (1 - p) to rounding.
    assert abs(kept.mean() - (1 - p)) <= 4.5 * np.sqrt(p * (1 - p) / n)
    np.testing.assert_allclose(out[kept], 1 / (1 - p), rtol=2 * U)
    # Independent units: the share of neighbours that both stay is the square.
    both = (kept[:, :-1] & kept[:, 1:]).mean()
    assert abs(both - (1 - p) ** 2) <= 4.5 * np.sqrt(2 / n)


def test_dropout_masks_of_the_backward_pass_are_those_of_the_forward_pass():
    layer = nn.Dropout(0.4, key=5)
    for _ in range(3):
        x = gc.tensor(normal(40, 30) + 9, requires_grad=True)
        out = layer(x)
        np.sum(out).backward()
        np.testing.assert_array_equal(x.grad.numpy() != 0, out.numpy() != 0)
        np.testing.assert_array_equal(x.grad.numpy() * x.numpy(), out.numpy())


def test_dropout_masks_change_with_each_call_and_continue_after_loading():
    x = np.ones((20, 20), np.float32)
    layer = nn.Dropout(0.5, key=5)
    first, second = layer(x), layer(x)
    assert (first != second).any()
    again = nn.Dropout(0.5, key=5)
    np.testing.assert_array_equal(again(x), first)
    loaded = nn.Dropout(0.5)  # whatever key it starts with
    loaded.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(loaded(x), layer(x))
    assert layer.eval()(x) is x
    assert nn.Dropout(0.0)(x) is x
    assert (nn.Dropout(0.5)(x) != nn.Dropout(0.5)(x)).any(), "without a key, other masks each time"
    for p in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match="Dropout: expected p from 0 to below 1"):
            nn.Dropout(p)


def test_embedding_takes_rows_and_gives_each_the_sum_of_its_gradients():
    layer = nn.Embedding(6, 3, key=2)
    index = np.array([[0, 2, 2], [5, 2, 0]])
    g = RNG.integers(-4, 5, (2, 3, 3)).astype(np.float32)  # small integers: sums are exact
    out = layer(index)
    np.testing.assert_array_equal(out.numpy(), layer.weight.numpy()[index])
    np.sum(out * g).backward()
    expected = np.zeros((6, 3))
    for place, row in np.ndenumerate(index):
        expected[row] += g[place]
    np.testing.assert_array_equal(layer.weight.grad.numpy(), expected)
    np.testing.assert_array_equal(layer([1, 1]).numpy(), layer.weight.numpy()[[1, 1]])
    assert layer(gc.tensor([3])).shape == (1, 3)
    assert layer(np.zeros((0,), int)).shape == (0, 3)
    with pytest.raises(TypeError, match="Embedding: expected integers, received dtype float64"):
        layer([0.5])
    for wrong in ([-1], [6]):
        with pytest.raises(ValueError, match="Embedding: expected indices from 0 to 5"):
            layer(wrong)


def test_sequential_is_the_composition_of_its_layers():
    net = nn.Sequential(nn.Linear(4, 6, key=1), nn.Tanh(), nn.Sequential(nn.Linear(6, 2, "relu", key=2)))
    x = normal(5, 4)
    hidden = np.tanh(x.astype(np.float64) @ net[0].weight.numpy())
    expected = np.maximum(hidden @ net[2][0].weight.numpy(), 0)
    np.testing.assert_allclose(net(x).numpy(), expected, atol=30 * U * np.abs(x).sum(1).max())
    assert len(net) == 3
    assert net[-1] is net[2]
    assert [type(layer).__name__ for layer in net] == ["Linear", "Tanh", "Sequential"]
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.0.weight", "2.0.bias"]
    with pytest.raises(IndexError):
        net[3]
    with pytest.raises(TypeError, match="layer 1 to be a Module"):
        nn.Sequential(nn.Tanh(), np.tanh)


# --- modules ----------------------------------------------------------------------------------------------------


class Pair(nn.Module):
    """Parts as attributes and in a list, a parameter of its own, a buffer, and a weight that two parts share."""

    def __init__(self, key=0):
        super().__init__()
        keys = gc.Generator(key)
        self.scale = gc.tensor([2.0], requires_grad=True)
        self.count = gc.tensor([0.0])
        self.encoder = nn.Sequential(nn.Linear(3, 2, key=keys), nn.Dropout(0.5, key=keys))
        self.heads = [nn.Linear(2, 2, key=keys), nn.BatchNorm(2)]
        self.tied = nn.Linear(3, 2, key=keys)
        self.tied.weight = self.encoder[0].weight

    def forward(self, x):
        for part in (self.encoder, *self.heads):
            x = part(x)
        return x * self.scale


PARAMETERS = ["scale", "encoder.0.weight", "encoder.0.bias", "heads.0.weight", "heads.0.bias", "heads.1.weight",
              "heads.1.bias", "tied.bias"]  # fmt: skip
BUFFERS = ["count", "encoder.1.key", "encoder.1.calls", "heads.1.running_mean", "heads.1.running_var"]


def test_names_are_dotted_and_what_is_shared_appears_once():
    model = Pair()
    assert [name for name, _ in model.named_parameters()] == PARAMETERS
    assert [name for name, _ in model.named_buffers()] == BUFFERS
    assert set(model.state_dict()) == {*PARAMETERS, *BUFFERS}
    assert [name for name, _ in model.named_modules()] == [
        "", "encoder", "encoder.0", "encoder.1", "heads.0", "heads.1", "tied",
    ]  # fmt: skip
    assert [name for name, _ in model.named_modules("a")][:2] == ["a", "a.encoder"]
    assert len(list(model.parameters())) == len({id(p) for p in model.parameters()}) == len(PARAMETERS)


def test_a_shared_parameter_collects_both_gradients():
    weight = gc.tensor([[3.0]], requires_grad=True)
    one, two = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    one.weight = two.weight = weight
    np.sum(nn.Sequential(one, two)(np.array([[5.0]], np.float32))).backward()
    assert weight.grad.item() == 2 * 3 * 5  # d (w^2 x) / dw
    model = nn.Sequential(one, one)
    assert [name for name, _ in model.named_parameters()] == ["0.weight"]
    model.zero_grad()
    assert weight.grad is None


def test_state_goes_round_and_is_a_copy():
    model, other = Pair(1), Pair(2)
    x = normal(6, 3)
    model(x)  # moves the buffers
    state = model.state_dict()
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)
    assert other.tied.weight is other.encoder[0].weight, "still shared"
    np.testing.assert_array_equal(other(x).numpy(), model(x).numpy())
    state["scale"][:] = 7
    assert model.scale.item() == 2
    other.load_state_dict({"scale": gc.tensor([5.0])}, strict=False)
    assert other.scale.item() == 5


def test_strict_loading_lists_all_names_and_changes_nothing():
    model = Pair(1)
    before, state = model.state_dict(), Pair(2).state_dict()
    broken = dict(state)
    del broken["scale"], broken["heads.1.running_var"]
    broken |= {"haeds.1.bias": np.zeros(2), "more": np.zeros(1)}
    with pytest.raises(
        ValueError,
        match=r"fit a Pair: missing scale, heads\.1\.running_var; unexpected haeds\.1\.bias, more",
    ):
        model.load_state_dict(broken)
    with pytest.raises(ValueError, match=r"heads\.1\.bias of shape \(2,\), received \(3,\)"):
        model.load_state_dict(state | {"heads.1.bias": np.zeros(3, np.float32)})
    with pytest.raises(TypeError, match=r"tied\.bias of dtype float32, received float64"):
        model.load_state_dict(state | {"tied.bias": np.zeros(2)}, strict=False)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_loading_makes_an_older_graph_refuse_to_be_differentiated():
    model = nn.Linear(2, 1, key=1)
    out = np.sum(np.square(model.weight))
    model.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="in place"):
        out.backward()


def test_training_and_evaluation_reach_all_parts():
    model = Pair()
    assert all(m.training for m in model.modules())
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    x = normal(4, 3)
    np.testing.assert_array_equal(model(x).numpy(), model(x).numpy())
    model.train()
    assert all(m.training for m in model.modules())


def test_to_a_device(monkeypatch):
    model = Pair()
    weight = model.scale
    assert model.to("cpu") is model
    assert model.scale is weight
    monkeypatch.setitem(sys.modules, "cupy", None)  # as where it is not installed
    with pytest.raises(ImportError, match=r"CuPy.*gencore\[cuda\]"):
        model.to("cuda")
    with pytest.raises(ValueError, match="device to be 'cpu' or 'cuda', received 'gpu'"):
        model.to("gpu")


def test_a_module_without_forward_says_so():
    class Nothing(nn.Module):
        pass

    with pytest.raises(TypeError, match="Nothing: defines no forward"):
        Nothing()(1)
    assert repr(nn.LayerNorm(3)) == "LayerNorm(n=3, eps=1e-05)"
    assert "encoder=Sequential" in repr(Pair())


# --- initial values ---------------------------------------------------------------------------------------------

# Of n values, the mean is off by std / sqrt(n), and the variance by a fraction sqrt((kurtosis - 1) / n): 2 for the
# normal, 0.8 for the uniform distribution. Both are allowed 4.5 standard deviations.
SHAPES = [(300, 200), (3, 2, 100, 50)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "numerator", "counted"),
    [("glorot", 2, lambda n_in, n_out: n_in + n_out), ("he", 2, lambda n_in, _: n_in),
     ("lecun", 1, lambda n_in, _: n_in)],
)  # fmt: skip
def test_variances_of_initial_values(shape, name, numerator, counted):
    taps = int(np.prod(shape[:-2]))
    variance = numerator / counted(taps * shape[-2], taps * shape[-1])
    for kind, kurtosis in (("normal", 3), ("uniform", 1.8)):
        function = getattr(init, f"{name}_{kind}", None)
        if function is None:
            assert (name, kind) == ("lecun", "uniform")
            continue
        values = function(shape, 7)
        assert values.shape == shape
        assert values.dtype == np.float32
        n = values.size
        v = values.astype(np.float64)
        assert abs(v.mean()) <= 4.5 * np.sqrt(variance / n)
        assert abs(np.mean(v**2) / variance - 1) <= 4.5 * np.sqrt((kurtosis - 1) / n)
        assert abs(np.mean(v**4) / variance**2 - kurtosis) <= 4.5 * np.sqrt(96 / n)  # the shape, too
        if kind == "uniform":
            assert np.abs(v).max() <= np.sqrt(3 * variance) * (1 + 4 * U)
        np.testing.assert_array_equal(function(shape, 7), values)
        assert (function(shape, 8) != values).mean() > 0.99


@pytest.mark.parametrize("shape", [(5, 5), (40, 7), (7, 40), (3, 3, 2, 6), (2, 1, 2, 9)])
def test_orthogonal_values(shape):
    matrix = init.orthogonal(shape, 3).reshape(-1, shape[-1]).astype(np.float64)
    rows, columns = matrix.shape
    gram = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    # Unit vectors whose elements are rounded to float32: products err by 2 U, and an element by its own rounding.
    np.testing.assert_allclose(gram, np.eye(min(rows, columns)), atol=4 * U)


def test_orthogonal_matrices_prefer_no_sign():
    """Haar measure: every element has mean 0 and variance 1 / n; QR alone would give one sign to the diagonal."""
    n, repeats = 3, 2000
    values = np.array([init.orthogonal((n, n), key) for key in range(repeats)], np.float64)
    assert (np.abs(values.mean(0)) <= 4.5 * np.sqrt(1 / n / repeats)).all()
    assert (np.abs(np.square(values).mean(0) - 1 / n) <= 4.5 * np.sqrt(4 / 45 / repeats)).all()  # of a square


def test_other_initial_values():
    assert (init.zeros((2, 3), 0) == 0).all()
    assert (init.constant(0.25)((4,), 0) == 0.25).all()
    uniform = init.uniform(0.5)((100_000,), 1)
    assert np.abs(uniform).max() <= 0.5
    assert abs(uniform.var(dtype=np.float64) * 12 - 1) <= 4.5 * np.sqrt(0.8 / 1e5)
    assert abs(init.normal(3.0)((100_000,), 1).std(dtype=np.float64) / 3 - 1) <= 4.5 * np.sqrt(0.5 / 1e5)
    with pytest.raises(ValueError, match=r"at least 2 axes \(\.\.\., n_in, n_out\), received shape \(4,\)"):
        init.glorot_uniform((4,), 0)
    assert (nn.Linear(3, 2, init=init.constant(2.0)).weight.numpy() == 2).all()
    assert (nn.Linear(3, 2).weight.numpy() != nn.Linear(3, 2).weight.numpy()).any()


def test_mlp_has_its_sizes_and_activations():
    net = nn.mlp((4, 8, 8, 2), "relu", last="logistic", key=3)
    assert [(layer.n_in, layer.n_out, layer.activation) for layer in net] == [
        (4, 8, "relu"), (8, 8, "relu"), (8, 2, "logistic"),
    ]  # fmt: skip
    same = nn.mlp((4, 8, 8, 2), "relu", last="logistic", key=3)
    x = normal(3, 4)
    np.testing.assert_array_equal(net(x).numpy(), same(x).numpy())


@pytest.mark.parametrize(
    "x", [np.ones(3, np.int64), np.ones(3, bool), gc.tensor([1, 2])], ids=["int", "bool", "Tensor"]
)
def test_dropout_refuses_what_it_cannot_scale(x):
    for layer in (nn.Dropout(0.5, key=1), nn.Dropout(0.5, key=1).eval()):
        with pytest.raises(
            TypeError, match=r"Dropout: expected a floating-point dtype, received (int64|bool)"
        ):
            layer(x)


@pytest.mark.parametrize(
    "make", [lambda n: nn.Embedding(n, 3), lambda n: nn.Embedding(3, n), nn.BatchNorm, nn.LayerNorm]
)
@pytest.mark.parametrize("n", [2.5, 0, True])
def test_sizes_are_counts(make, n):
    with pytest.raises(ValueError, match="to be an integer of at least 1"):
        make(n)
