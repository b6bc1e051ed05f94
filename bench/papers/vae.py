"""Variational autoencoders: Burda, Grosse & Salakhutdinov 2016 (IWAE); Jang, Gu & Poole 2017 (Gumbel-softmax).

Static binarised MNIST. The IWAE paper's schedule: stages i = 1 .. 8 of 3^(i-1) epochs at 10^-3 * 10^(-(i-1)/7),
rounded, with Adam's eps at 10^-4; parameters are those of the best validation bound.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import gencore as gc
from papers.common import checkpoint, report


def stages(n: int) -> tuple[int, gc.train.Schedule]:
    """Epochs and learning rate of the first n of the paper's eight stages, with the paper's last rate in the last."""
    lengths = [3**i for i in range(n)]
    rates = [1e-4 * round(10 ** (1 - i / max(n - 1, 1)), 1) for i in range(n)]
    total = sum(lengths)
    return total, gc.train.step(rates, [end / total for end in accumulate(lengths)][:-1])


@dataclass(frozen=True)
class Setting:
    """One line of a paper's table. `model` and `fit` are arguments of `gc.models.VAE` and its `fit`."""

    title: str
    published: str
    n_latent: int | tuple[int, int]
    model: dict[str, Any]
    fit: dict[str, Any]
    epochs: int
    lr: Callable[[], gc.train.Schedule]
    patience: int
    eps: float = 1e-8
    n_samples: int = 5000
    data: str = "binarized_mnist"
    notes: dict[str, Any] = field(default_factory=dict)
    first: "Setting | None" = None  # whose trained model this one goes on from

    def train(self, data: Any, path: Path, seed: int) -> tuple[gc.models.VAE, list[dict[str, float]]]:
        """Train to the end, or on to it from the checkpoint at `path`; the `first` setting before this one."""
        earlier: list[dict[str, float]] = []
        if self.first is None:
            model = gc.models.VAE(data.train.shape[1], self.n_latent, seed=seed, **self.model)
        else:
            model, earlier = self.first.train(data, _of_first(path), seed)
        records = model.fit(
            data.train, epochs=self.epochs, lr=self.lr(), validation=data.valid, callbacks=[report],
            patience=self.patience, checkpoint=path, resume=True, progress=False,
            optimizer=lambda params: gc.optim.Adam(params, lr=1e-3, eps=self.eps), **self.fit,
        ).records  # fmt: skip
        return model, _after(earlier, records)

    def run(self, name: str, work: Path, seed: int, so_far: bool) -> dict[str, Any]:
        """Train to the end (or on to it), or take what the checkpoint holds; evaluate on the test set."""
        data, path = gc.datasets.load(self.data), work / f"{name}.safetensors"
        if so_far:
            model, records = checkpoint(gc.models.VAE, path)
            if self.first is not None:
                records = _after(checkpoint(gc.models.VAE, _of_first(path))[1], records)
        else:
            work.mkdir(parents=True, exist_ok=True)
            model, records = self.train(data, path, seed)
        start = time.perf_counter()
        likelihood = model.log_likelihood(data.test, self.n_samples, key=1)
        seconds = time.perf_counter() - start
        bound = model.elbo(data.test, n_samples=10, key=2)
        relaxed = {}
        if isinstance(last := self.fit.get("temperature"), float) or callable(last):
            last = float(last(1.0)) if callable(last) else last
            of_test = model.elbo(data.test, n_samples=10, key=4, temperature=last).value
            relaxed = {"temperature": last, "test_negative_relaxed_elbo": float(-of_test.detach().mean())}
        train_rows = data.train[:: len(data.train) // 2000]
        return {
            "name": name, "title": self.title, "published_test_nll": self.published,
            "test_nll": float(-likelihood.mean()),
            "test_nll_standard_error": float(likelihood.std() / len(likelihood) ** 0.5),
            "test_nll_is": f"minus the importance-weighted bound of {self.n_samples} draws",
            "test_negative_elbo": float(-bound.value.detach().mean()),
            **relaxed,
            "train_nll_of_2000_rows": float(-model.log_likelihood(train_rows, min(self.n_samples, 500), key=3).mean()),
            "active_units": [int(a.sum()) for a in model.active_units(data.test)],
            "evaluation_seconds": round(seconds, 2),
            "training": {
                "data": self.data, "n_latent": self.n_latent, **self.model, "epochs": self.epochs,
                "patience": self.patience, "epochs_done": len(records), "seed": seed,
                "lr": [self.lr()(x) for x in (0.0, 0.5, 1.0)], "adam_eps": self.eps,
                **{k: v for k, v in self.fit.items() if not callable(v)}, **self.notes,
                "seconds": records[-1]["seconds"], "updates": records[-1]["step"],
            },
            "curve": records,
        }  # fmt: skip


def _of_first(path: Path) -> Path:
    return path.with_stem(path.stem + "-first")


def _after(earlier: list[dict[str, float]], records: list[dict[str, float]]) -> list[dict[str, float]]:
    """The records of two trainings, one after the other."""
    begin = earlier[-1]["seconds"] if earlier else 0.0
    return earlier + [{**r, "seconds": begin + r["seconds"]} for r in records]


def _burda(title: str, published: str, layers: int, k: int, n_stages: int, **more: Any) -> Setting:
    epochs, lr = stages(n_stages)
    model = {"hidden": (200, 200)} if layers == 1 else {"hidden": ((200, 200), (100, 100))}
    return Setting(
        title, f"{published} (Burda et al. 2016)", 50 if layers == 1 else (100, 50), model,
        {"n_importance": k, "batch_size": 20}, epochs, lambda: lr, eps=1e-4, **{"patience": 150, **more},
    )  # fmt: skip


def _warm(title: str, published: str, layers: int, epochs: int) -> Setting:
    """So many epochs of k = 50 after six stages of k = 1."""
    return replace(
        _burda(title, published, layers, 50, 5), epochs=epochs, lr=lambda: gc.train.exponential(3e-4, 1e-4),
        first=_burda("", "", layers, 1, 6), notes={"before": "k = 1, six stages, 364 epochs"},
    )  # fmt: skip


def _jang(kind: str, how: str, published: str, **fit: Any) -> Setting:
    model: dict[str, Any] = {"latent": kind, "hidden": ()}
    if kind == "categorical":
        model |= {"n_classes": 10, "decoder_hidden": (200,)}
    if "estimator" not in fit:
        fit |= {"temperature": 0.5 if kind == "bernoulli" else gc.train.exponential(1.0, 0.5)}
    # Linear nets of binary units learn slowly: three times the epochs, from a higher rate where draws are smooth.
    epochs, start = (300, 3e-3 if "estimator" not in fit else 1e-3) if kind == "bernoulli" else (100, 1e-3)
    size = "784-200-784" if kind == "bernoulli" else "784-(20x10)-200-784"
    return Setting(
        f"VAE {kind} {size}, {how}", f"{published} (Jang et al. 2017)", 200 if kind == "bernoulli" else 20, model,
        {"batch_size": 100, **fit}, epochs, lambda: gc.train.exponential(start, 1e-4), patience=60, n_samples=1000,
    )  # fmt: skip


SETTINGS = {
    "vae-1": _burda("VAE, 1 stochastic layer, k=1", "88.71", 1, 1, 8),
    "iwae-1": _burda("IWAE, 1 stochastic layer, k=50", "87.10", 1, 50, 8),
    "vae-2": _burda("VAE, 2 stochastic layers, k=1", "88.08", 2, 1, 8),
    "iwae-2": _burda("IWAE, 2 stochastic layers, k=50", "85.32", 2, 50, 8),
    # The first stages of the schedule, for an hour of one core: 121 epochs are five of the eight, 364 are six.
    "iwae-1-short": _burda("IWAE, 1 stochastic layer, k=50, 5 stages", "87.10 (8 stages)", 1, 50, 5),
    "vae-2-short": _burda("VAE, 2 stochastic layers, k=1, 6 stages", "88.08 (8 stages)", 2, 1, 6),
    "iwae-2-short": _burda("IWAE, 2 stochastic layers, k=50, 5 stages", "85.32 (8 stages)", 2, 50, 5),
    # Section 5.3 of the IWAE paper trains a VAE on with k = 50 and loses 0.1 nats to training with k = 50 throughout.
    "iwae-1-warm": _warm("IWAE, 1 stochastic layer, k=50 after k=1", "87.10 (k=50 throughout)", 1, 100),
    "iwae-2-warm": _warm("IWAE, 2 stochastic layers, k=50 after k=1", "85.32 (k=50 throughout)", 2, 60),
    "concrete-bernoulli": _jang("bernoulli", "Gumbel-softmax", "105.0"),
    "concrete-categorical": _jang("categorical", "Gumbel-softmax", "101.5"),
    "straight-through-bernoulli": _jang("bernoulli", "straight-through", "111.5", straight_through=True),
    "straight-through-categorical": _jang("categorical", "straight-through", "107.8", straight_through=True),
    "reinforce-bernoulli": _jang("bernoulli", "NVIL", "112.2, score function", estimator="reinforce"),
    "reinforce-categorical": _jang("categorical", "NVIL", "110.6, score function", estimator="reinforce"),
}
