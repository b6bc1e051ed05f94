"""gc.train.fit: least squares, files that resume to the same bits, early stopping, divergence, wrong arguments."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from model_checks import without_times

import gencore as gc
from gencore import io, nn, optim
from gencore.train import DivergenceError, cosine, linear

RNG = np.random.default_rng(30)
X = RNG.standard_normal((100, 5)).astype(np.float32)
Y = (X @ RNG.standard_normal((5, 2)) + 0.3 * RNG.standard_normal((100, 2)) + 1).astype(np.float32)
DATA, VALID = (X[:80], Y[:80]), (X[80:], Y[80:])


def square_loss(module, batch, key):
    x, y = batch
    return np.mean(np.square(module(x) - y))


def net(key=0):
    """With everything that changes in training: masks, running statistics."""
    keys = gc.Generator(key)
    return nn.Sequential(
        nn.Linear(5, 8, "tanh", key=keys), nn.BatchNorm(8), nn.Dropout(0.3), nn.Linear(8, 2, key=keys)
    )


def fit(module, data=DATA, optimizer=None, loss=square_loss, **options):
    optimizer = optimizer or optim.Adam(module.parameters(), lr=0.01)
    options = {"epochs": 3, "batch_size": 30, "validation": VALID, "progress": False} | options
    return gc.train.fit(module, loss, data, optimizer=optimizer, **options)


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def own(path):
    """What a checkpoint holds of the module itself."""
    tensors = io.load_model(path, "Sequential").tensors
    return {name: array for name, array in tensors.items() if not name.startswith("training.")}


class StoppedError(Exception):
    pass


def stop_at(epoch):
    def callback(module, record):
        if record["epoch"] == epoch:
            raise StoppedError

    return callback


# --- what it learns ---------------------------------------------------------------------------------------------


def test_linear_regression_reaches_least_squares():
    module = nn.Linear(5, 2, key=0)
    history = fit(
        module, optimizer=optim.SGD(module.parameters(), lr=0.5), epochs=300, batch_size=80, validation=None
    )
    design = np.column_stack([DATA[0], np.ones(80)]).astype(np.float64)
    solution, residues, *_ = np.linalg.lstsq(design, DATA[1].astype(np.float64), rcond=None)
    # Steps of 0.5 on a Hessian of 1/2 mean x x' shrink the distance by 1 - 0.5 (least eigenvalue) an epoch; what stays
    # is the rounding of a gradient, some 10 units of numbers below 10, by the same factor's inverse.
    least = np.linalg.eigvalsh(design.T @ design / 80)[0]
    assert (1 - 0.5 * least) ** 300 < 1e-7
    bound = 10 * 10 * 2.0**-24 / least
    np.testing.assert_allclose(module.weight.numpy(), solution[:5], atol=bound)
    np.testing.assert_allclose(module.bias.numpy(), solution[5], atol=bound)
    assert history["loss"][-1] == pytest.approx(residues.sum() / 160, rel=1e-5)
    assert len(history) == 300
    assert history["step"] == list(range(1, 301))
    assert not module.training


def test_records_are_means_over_rows_and_of_held_out_data():
    module = nn.Linear(5, 2, key=0)
    before = square_loss(module, DATA, 0).item()
    held_out = square_loss(module, VALID, 0).item()

    def loss(module, batch, key):
        return square_loss(module, batch, key), {"rows": len(batch[0]), "x": float(batch[0][:, 0].mean())}

    frozen = optim.SGD(module.parameters(), lr=1e-30)
    history = fit(module, optimizer=frozen, loss=loss, epochs=2)
    record = history.records[1]
    # Batches of 30, 30 and 20 rows; a mean of float32 losses errs by some units.
    assert record["loss"] == pytest.approx(before, rel=1e-6)
    assert record["validation_loss"] == pytest.approx(held_out, rel=1e-6)
    assert record["rows"] == pytest.approx((30 * 30 + 30 * 30 + 20 * 20) / 80)
    assert record["x"] == pytest.approx(DATA[0][:, 0].mean(), rel=1e-5)
    assert record["validation_rows"] == 20
    assert (record["epoch"], record["step"], record["lr"]) == (2, 6, 1e-30)


def test_every_row_is_met_once_an_epoch_and_keys_never_repeat():
    rows, keys = [], []

    def loss(module, batch, key):
        if module.training:
            rows.append(batch[:, 0])
            keys.append(int(key))
        return np.sum(module.weight)

    module = nn.Linear(1, 1, key=0)
    numbers = np.arange(25, dtype=np.float32)[:, None]
    for _ in range(2):
        fit(module, numbers, loss=loss, batch_size=10, epochs=3, validation=None, seed=len(rows))
    epochs = [np.concatenate(rows[i : i + 3]) for i in range(0, 18, 3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), numbers[:, 0])
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert len(set(keys)) == 18


def test_schedules_and_the_optimizers_own_rate():
    seen = []

    class Watched(optim.SGD):
        def step(self):
            seen.append(self.param_groups[0]["lr"])
            super().step()

    module = nn.Linear(5, 2, key=0)
    history = fit(module, optimizer=Watched(module.parameters(), lr=9.0), lr=linear(0.6, 0.0), epochs=2)
    assert seen == pytest.approx([0.6 * (1 - i / 6) for i in range(6)])
    assert history["lr"] == pytest.approx([0.4, 0.1])  # of the epoch's last update
    seen.clear()
    assert fit(module, optimizer=Watched(module.parameters(), lr=0.03), epochs=1)["lr"] == [0.03]
    assert seen == [0.03] * 3


def test_clip_norm_bounds_the_step():
    module = nn.Linear(5, 2, key=0)
    before = module.state_dict()
    fit(module, optimizer=optim.SGD(module.parameters(), lr=1.0), epochs=1, batch_size=80, clip_norm=1e-2)
    moved = [module.state_dict()[name].astype(np.float64) - before[name] for name in before]
    # A step of lr 1 is the clipped gradient, but for the rounding of parameters below 2.
    assert np.sqrt(sum(np.square(m).sum() for m in moved)) == pytest.approx(1e-2, rel=1e-3, abs=12 * 2.0**-23)


def test_callbacks_see_each_record_and_end_the_training():
    module, seen, second = nn.Linear(5, 2, key=0), [], []

    def callback(given, record):
        assert given is module
        seen.append(record["epoch"])
        return record["epoch"] == 2

    history = fit(module, epochs=5, callbacks=[callback, lambda m, r: second.append(r["loss"])])
    assert seen == [1, 2]
    assert second == history["loss"], "those after it are still called"
    assert len(history) == 2


@pytest.mark.parametrize("returned", [None, False, 1, "stop", np.ones(2), {"a": 1}, np.False_], ids=str)
def test_nothing_but_true_ends_the_training(returned):
    """A figure that a plot returns is no reason to stop, nor is an array, which is neither true nor false."""
    assert len(fit(net(), callbacks=[lambda m, r: returned])) == 3
    for true in (True, np.True_):
        assert len(fit(net(), callbacks=[lambda m, r, true=true: true, lambda m, r: returned])) == 1


def test_a_callback_that_evaluates_does_not_change_the_bits():
    found = [net(), net()]
    for module, callbacks in zip(found, ([], [lambda m, r: m.eval() and None]), strict=True):
        module[2].load_state_dict({"key": np.uint64(3), "calls": np.int64(0)})
        fit(module, callbacks=callbacks, validation=None)
    assert_same_state(found[1].state_dict(), found[0].state_dict())


def test_a_modules_own_attributes_are_left_alone():
    class Noisy(nn.Linear):
        def __init__(self):
            super().__init__(5, 2, key=0)
            self.steps, self.config = 1000, object()  # of a diffusion, say

    module = Noisy()
    config = module.config
    history = fit(module, epochs=1)
    assert module.steps == 1000
    assert module.config is config
    assert history["step"] == [3]


# --- resuming ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [None, 2, 5])  # an epoch has 3 updates
@pytest.mark.parametrize(
    "optimizer",
    [lambda p: optim.Adam(p, lr=0.01), lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
     lambda p: optim.RMSprop(p, lr=0.003)],
    ids=["adam", "momentum", "rmsprop"],
)  # fmt: skip
def test_resuming_gives_the_bits_of_an_unbroken_run(tmp_path, every, optimizer):
    path = tmp_path / "a"
    options = {"epochs": 6, "lr": cosine(0.02), "clip_norm": 0.5, "patience": 4}
    whole = net()
    whole[2].load_state_dict({"key": np.uint64(3), "calls": np.int64(0)})
    expected = fit(whole, optimizer=optimizer(whole.parameters()), **options)
    for epoch in (1, 2, 4):
        part = net()
        part[2].load_state_dict({"key": np.uint64(3), "calls": np.int64(0)})
        with pytest.raises(StoppedError):
            fit(
                part, optimizer=optimizer(part.parameters()), **options, checkpoint=path, checkpoint_every=every,
                resume=True, callbacks=[stop_at(epoch)],
            )  # fmt: skip
    resumed = net(key=77)  # nothing of it counts
    history = fit(
        resumed, optimizer=optimizer(resumed.parameters()), **options, checkpoint=path, checkpoint_every=every,
        resume=True,
    )  # fmt: skip
    assert without_times(history.records) == without_times(expected.records)
    assert_same_state(resumed.state_dict(), whole.state_dict())
    assert_same_state(own(path), whole.state_dict())
    again = net()
    history = fit(
        again, optimizer=optimizer(again.parameters()), **options, checkpoint=path, checkpoint_every=every,
        resume=True,
    )  # fmt: skip
    assert without_times(history.records) == without_times(expected.records), "nothing was left to do"
    assert_same_state(again.state_dict(), whole.state_dict())


def test_resuming_after_kill_9(tmp_path):
    path = tmp_path / "a"
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_train_fit import *

        count = 0
        def deadly(module, batch, key):
            global count
            count += module.training
            if count == 9:  # the last but one checkpoint is of update 8, the third epoch's second
                os.kill(os.getpid(), signal.SIGKILL)
            return square_loss(module, batch, key)

        module = net()
        module[2].load_state_dict({{"key": np.uint64(3), "calls": np.int64(0)}})
        fit(module, loss=deadly, epochs=5, checkpoint={str(path)!r}, checkpoint_every=2)
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)], capture_output=True, check=False, env=os.environ.copy()
    )  # fmt: skip
    assert done.returncode == -9, done.stderr.decode()
    stored = io.load_model(path)
    assert stored.state["steps"] == 8
    assert (stored.state["training"]["epoch"], stored.state["training"]["batch"]) == (2, 2)
    resumed, whole = net(4), net()
    whole[2].load_state_dict({"key": np.uint64(3), "calls": np.int64(0)})
    history = fit(resumed, epochs=5, checkpoint=path, checkpoint_every=2, resume=True)
    expected = fit(whole, epochs=5)
    assert without_times(history.records) == without_times(expected.records)
    assert_same_state(resumed.state_dict(), whole.state_dict())


def test_more_epochs_go_on_where_the_training_ended(tmp_path):
    def make():
        module = nn.Sequential(nn.Linear(5, 3, "tanh", key=5), nn.Linear(3, 2, key=6))
        # Steps so long that the best epoch is none of the last.
        return module, optim.Adam(module.parameters(), lr=0.4)

    for patience in (None, 50):
        path = tmp_path / f"{patience}"
        whole, optimizer = make()
        expected = fit(whole, optimizer=optimizer, epochs=20, patience=patience)
        module, optimizer = make()
        early = fit(module, optimizer=optimizer, epochs=12, patience=patience, checkpoint=path)
        assert early["validation_loss"][-1] > min(early["validation_loss"])
        module, optimizer = make()
        history = fit(module, optimizer=optimizer, epochs=20, patience=patience, checkpoint=path, resume=True)
        assert without_times(history.records) == without_times(expected.records)
        assert_same_state(module.state_dict(), whole.state_dict())


def test_what_callbacks_draw_does_not_change_the_bits(tmp_path):
    def train(path=None, **options):
        model = gc.models.VAE(5, 2, hidden=(4,), likelihood="gaussian", seed=3)
        model.fit(X, epochs=4, batch_size=40, progress=False, checkpoint=path, **options)
        return model

    plain = train()
    path = tmp_path / "a"
    with pytest.raises(StoppedError):
        train(path, callbacks=[lambda m, r: m.sample(3) is None, stop_at(2)])
    resumed = train(path, resume=True, callbacks=[lambda m, r: m.sample(3) is None])
    assert_same_state(resumed.state_dict(), plain.state_dict())


def test_resuming_with_other_arguments_is_refused(tmp_path):
    path = tmp_path / "a"
    arguments = {
        "lr": np.float32(0.25),
        "epochs": np.int64(2),
        "batch_size": np.int32(30),
        "checkpoint": path,
    }
    fit(nn.Linear(5, 2, key=0), **arguments)
    before = path.read_bytes()
    fit(nn.Linear(5, 2, key=0), **arguments, resume=True)
    labels = (X[:80], Y[:80] + 1)
    for changes, named in (
        ({"epochs": 1}, "epochs was 2, is 1"),
        ({"lr": 0.5}, "lr was 0.25, is 0.5"),
        ({"lr": linear(0.25)}, "lr was 0.25, is"),
        ({"batch_size": 31}, "batch_size was 30, is 31"),
        ({"clip_norm": 1.0}, "clip_norm was None"),
        ({"patience": 2}, "patience was None"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"data": labels}, "X was '80 rows"),
        ({"validation": None}, "validation was '20 rows"),
        ({"data": (X[:79], Y[:79])}, "X was '80 rows"),
    ):
        module = nn.Linear(5, 2, key=0)
        kept = module.state_dict()
        with pytest.raises(ValueError, match=named):
            fit(module, **{**arguments, **changes}, resume=True)
        assert_same_state(module.state_dict(), kept)
    module = nn.Linear(5, 2, key=0)
    with pytest.raises(ValueError, match="optimizer was 'Adam', is 'SGD'"):
        fit(module, optimizer=optim.SGD(module.parameters(), lr=0.25), **arguments, resume=True)
    for options, named in (
        ({"betas": (0.8, 0.999)}, r"optimizer's betas was \[0\.9, 0\.999\], is \[0\.8, 0\.999\]"),
        ({"weight_decay": 0.1}, r"optimizer's weight_decay was 0\.0, is 0\.1"),
    ):
        adam = optim.Adam(module.parameters(), lr=0.25, **options)
        with pytest.raises(ValueError, match=named):
            fit(module, optimizer=adam, **arguments, resume=True)
    with pytest.raises(ValueError, match=r"expected (bias|weight) of shape \((5, )?3,?\)"):
        fit(nn.Linear(5, 3, key=0), **arguments, resume=True)
    with pytest.raises(ValueError, match="holds a Linear, expected a Sequential"):
        fit(net(), **arguments, resume=True)
    assert path.read_bytes() == before
    # A rate that is the optimizer's own, and a schedule with more epochs, are other trainings, too.
    other = tmp_path / "b"
    fit(module, optimizer=optim.SGD(module.parameters(), lr=0.25), checkpoint=other)
    with pytest.raises(ValueError, match=r"lr was 0\.25, is 0\.5"):
        fit(module, optimizer=optim.SGD(module.parameters(), lr=0.5), checkpoint=other, resume=True)
    fit(module, lr=linear(0.1), checkpoint=other)
    with pytest.raises(ValueError, match="epochs was 3, is 4"):
        fit(module, lr=linear(0.1), epochs=4, checkpoint=other, resume=True)
    with pytest.raises(ValueError, match="lr was"):  # the same at both ends and in the middle
        fit(module, lr=lambda d: linear(0.1)(d) + d * (1 - d) * (d - 0.5) ** 2, checkpoint=other, resume=True)


# --- early stopping ---------------------------------------------------------------------------------------------


def walk(figures, name="loss"):
    """A loss whose validation figure follows a script, one a epoch, and whose parameter counts the epochs."""

    def loss(module, batch, key):
        if module.training:
            return -np.sum(module.weight), {}
        step = round(module.weight.item())
        value = figures[step - 1]
        return np.sum(module.weight).astype(np.float64) * 0 + value, {} if name == "loss" else {name: value}

    return loss


def scripted(figures, path=None, name="loss", **options):
    module = nn.Linear(1, 1, bias=False, init=nn.init.zeros, key=0)
    data = np.zeros((4, 1), np.float32)
    options = {"epochs": len(figures), "batch_size": 4, "validation": data[:1], "checkpoint": path} | options
    history = fit(
        module, data, optim.SGD(module.parameters(), lr=1.0), walk(figures, name), monitor=f"validation_{name}",
        **options,
    )  # fmt: skip
    return module.weight.item(), history


@pytest.mark.parametrize(
    ("figures", "patience", "epochs", "best"),
    [
        ([5, 4, 3, 3.5, 3.2, 2, 1], 2, 5, 3),  # two without improvement
        ([5, 4, 3, 3.5, 2.5, 2.7, 2.6, 2.55], 2, 7, 5),  # waiting starts anew
        ([1, 1, 1], 2, 3, 1),  # no change is no improvement
        ([3, 2, 1], 1, 3, 3),
        ([3, 4], 5, 2, 1),  # ends by its epochs: still the best
    ],
)
def test_early_stopping_returns_to_the_best(tmp_path, figures, patience, epochs, best):
    path = tmp_path / "a"
    weight, history = scripted(figures, path, patience=patience)
    assert (weight, len(history)) == (best, epochs)
    assert io.load_model(path).tensors["weight"].item() == best
    assert scripted(figures, path, patience=patience, resume=True)[0] == best
    merit = [-f for f in figures]
    weight, history = scripted(merit, name="accuracy", patience=patience)  # should rise
    assert (weight, len(history)) == (best, epochs)


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_resuming_in_the_middle_of_patience(tmp_path, stop):
    figures = [5, 3, 4, 3.5, 3.2, 2, 1]
    with pytest.raises(StoppedError):
        scripted(figures, tmp_path / "a", patience=3, callbacks=[stop_at(stop)])
    weight, history = scripted(figures, tmp_path / "a", patience=3, resume=True)
    assert (weight, len(history)) == (2, 5)
    assert history["validation_loss"] == figures[:5]
    # and what early stopping ended stays ended, however many epochs are asked for
    weight, history = scripted(figures, tmp_path / "a", patience=3, resume=True, epochs=50)
    assert (weight, len(history)) == (2, 5)


# --- divergence -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [1, 3, 4, 5])  # first of all; the ends of an epoch of 3
def test_nan_loss_names_its_update_and_the_checkpoint_stays(tmp_path, bad):
    path, count = tmp_path / "a", [0]

    def loss(module, batch, key):
        count[0] += module.training
        return square_loss(module, batch, key) * (np.nan if module.training and count[0] == bad else 1)

    module = net()
    with pytest.raises(
        DivergenceError, match=rf"the loss became nan at update {bad} \(epoch {1 + (bad - 1) // 3}\)"
    ) as error:
        fit(module, loss=loss, checkpoint=path, checkpoint_every=1)
    assert not module.training
    if bad == 1:
        assert "no checkpoint was written yet" in str(error.value)
        assert not path.exists()
        return
    assert f"the last good checkpoint is {path}" in str(error.value)
    stored = io.load_model(path)
    assert stored.state["steps"] == bad - 1
    assert all(np.isfinite(array).all() for array in stored.tensors.values())
    module = net()
    assert len(fit(module, checkpoint=path, checkpoint_every=1, resume=True)) == 3
    assert all(np.isfinite(p.numpy()).all() for p in module.parameters())


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(
    ("every", "loss_sees_it", "named"),
    [
        (1, False, "weight became nan at update 2"),
        (None, False, "weight became nan at one of the updates 1 to 3"),
        (None, True, "weight became nan at one of the updates 1 to 2"),  # not the loss, at update 3
    ],
)
def test_a_gradient_that_is_nan_is_placed_as_well_as_is_known(tmp_path, every, loss_sees_it, named):
    count = [0]

    def loss(module, batch, key):
        count[0] += 1
        clean = (
            module.weight
            if loss_sees_it
            else np.where(np.isfinite(module.weight.detach()), module.weight, 0.0)
        )
        return np.sum(clean) + np.sum(np.sqrt(module.weight * 0.0 if count[0] == 2 else gc.tensor([1.0])))

    module = nn.Linear(5, 2, bias=False, key=0)
    path = None if every is None else tmp_path / "a"
    with pytest.raises(DivergenceError, match=named):
        fit(
            module, optimizer=optim.SGD(module.parameters(), lr=0.01), loss=loss, checkpoint=path,
            checkpoint_every=every, validation=None,
        )  # fmt: skip


def test_parameters_and_buffers_that_are_not_finite_are_not_saved(tmp_path):
    path = tmp_path / "a"
    module = nn.Linear(5, 2, key=0)
    with pytest.raises(DivergenceError, match=r"(weight|bias) became -?(nan|inf) at update 3 \(epoch 1\)"):
        # The loss of the third update is finite still, its step is not.
        fit(
            module, optimizer=optim.SGD(module.parameters(), lr=1.0), checkpoint=path, checkpoint_every=1,
            lr=lambda done: 1e39 if 0.3 < done < 0.4 else 1e-3, epochs=2,
        )  # fmt: skip
    assert io.load_model(path).state["steps"] == 2

    def spoil(module, batch, key):
        with gc.no_grad():
            module[1].running_var[...] = np.inf
        return np.sum(module[0].weight)

    with pytest.raises(DivergenceError, match=r"running_var became inf at update 1"):
        fit(net(), loss=spoil, checkpoint=tmp_path / "b", checkpoint_every=1)
    assert not (tmp_path / "b").exists()


# --- wrong arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"epochs": 0}, ValueError, "fit: expected epochs to be an integer of at least 1, received 0"),
        ({"epochs": 1.0}, ValueError, "epochs"),
        ({"batch_size": True}, ValueError, "batch_size"),
        ({"patience": 0}, ValueError, "patience"),
        ({"patience": 3, "validation": None}, ValueError, "expected validation, since patience watches"),
        ({"patience": 3, "monitor": "validation_accuracy"}, ValueError, "monitor to be one of .*validation_loss"),
        ({"lr": -1.0}, ValueError, "lr to be above 0"),
        ({"lr": np.nan}, ValueError, "lr to be above 0"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm to be above 0"),
        ({"checkpoint_every": 5}, ValueError, "checkpoint to name a file"),
        ({"checkpoint_every": 0, "checkpoint": "a"}, ValueError, "checkpoint_every to be an integer of at least 1"),
        ({"checkpoint": "no/such/a"}, ValueError, "fit: expected checkpoint in a folder that exists"),
        ({"callbacks": print}, TypeError, "fit: expected callbacks to be a sequence of functions"),
        ({"validation": (X[:0], Y[:0])}, ValueError, "fit: expected validation to have at least 1 row, received 0"),
        ({"validation": (X[:4], Y[:3])}, ValueError, r"as many rows each in validation, received \[4, 3\]"),
        ({"lr": "0.1"}, ValueError, "lr to be above 0, received '0.1'"),
        ({"resume": True}, ValueError, "checkpoint to name the file to resume from"),
        ({"data": (X[:4], Y[:3])}, ValueError, r"as many rows each in X, received \[4, 3\]"),
        ({"data": X[:0]}, ValueError, "at least 1 row"),
        ({"data": X.tolist()}, TypeError, "expected X to be an array or a tuple of arrays, received list"),
        ({"loss": lambda m, b, k: (square_loss(m, b, k), {"loss": 1.0})}, ValueError, "other names than .*'loss'"),
        ({"loss": lambda m, b, k: (square_loss(m, b, k), {"lr": 1.0})}, ValueError, "other names than .*'lr'"),
        ({"loss": lambda m, b, k: 1.0}, TypeError, "loss to return a Tensor of one element.*received float"),
        ({"loss": lambda m, b, k: m(b[0])}, TypeError, r"loss to return a Tensor of one element.*\(30, 2\)"),
    ],
)  # fmt: skip
def test_wrong_arguments(changes, error, named):
    with pytest.raises(error, match=named):
        fit(nn.Linear(5, 2, key=0), **changes)


@pytest.mark.parametrize("optimizer", [None, "adam", optim.Adam])
def test_what_is_no_optimizer_is_named(optimizer):
    with pytest.raises(TypeError, match=r"fit: expected optimizer to be one of gencore\.optim, received"):
        gc.train.fit(net(), square_loss, DATA, optimizer=optimizer, epochs=1)
