"""Autoregressive models with exact likelihoods: the static binarised MNIST, and the UCI sets DNA and Mushrooms.

NADE: Larochelle & Murray 2011, as Uria et al. 2016 quote it. MADE: Germain et al. 2015. EoNADE, and NADE and the fully
visible net on the UCI sets: Uria, Murray & Larochelle 2014. PixelCNN, Row LSTM and
Diagonal BiLSTM: van den Oord, Kalchbrenner & Kavukcuoglu 2016.
Weight decay and the rest of a setting were chosen by the validation figure.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gencore as gc
from papers.common import checkpoint, report


@dataclass(frozen=True)
class Setting:
    """One line of a paper's table: a model, its arguments, and those of its `fit`."""

    title: str
    published: str
    epochs: int
    patience: int
    kind: str
    size: tuple[Any, ...]
    model: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    data: str = "binarized_mnist"
    lr: tuple[float, float] = (1e-3, 1e-4)  # at the start and at the end

    def run(self, name: str, work: Path, seed: int, so_far: bool) -> dict[str, Any]:
        """Train to the end (or on to it), or take what the checkpoint holds; evaluate on the test set."""
        data, path = gc.datasets.load(self.data), work / f"{name}.safetensors"
        lr = gc.train.exponential(*self.lr)
        kind = getattr(gc.models, self.kind)
        if so_far:
            model, records = checkpoint(kind, path)
        else:
            model = kind(*self.size, seed=seed, **self.model)
            work.mkdir(parents=True, exist_ok=True)
            records = model.fit(
                data.train, epochs=self.epochs, lr=lr, validation=data.valid, callbacks=[report], progress=False,
                patience=self.patience, checkpoint=path, resume=True, **self.fit,
            ).records  # fmt: skip
        start = time.perf_counter()
        log_p = model.log_prob(data.test)
        seconds = time.perf_counter() - start
        return {
            "name": name, "title": self.title, "published_test_nll": self.published,
            "test_nll": float(-log_p.mean()), "test_nll_standard_error": float(log_p.std() / len(log_p) ** 0.5),
            "validation_nll": float(-model.log_prob(data.valid).mean()), "test_nll_is": "exact",
            "evaluation_seconds": round(seconds, 2),
            "training": {
                "data": self.data, "model": self.kind, "size": self.size, **self.model, **self.fit,
                "epochs": self.epochs, "patience": self.patience,
                "epochs_done": len(records), "seed": seed, "lr": [lr(x) for x in (0.0, 0.5, 1.0)],
                "parameters": model.n_parameters(), "seconds": records[-1]["seconds"],
                "updates": records[-1]["step"],
            },
            "curve": records,
        }  # fmt: skip


_RATES = {"lr": (3e-3, 3e-4)}
_UCI = {"batch_size": 20, "optimizer": "adam"}


def _uci(
    kind: str, title: str, data: str, published: str, size: tuple[Any, ...] = (), **more: Any
) -> Setting:
    """A model of DNA (180 dimensions) or Mushrooms (112)."""
    units = {"dna": 180, "mushrooms": 112}[data]
    return Setting(
        f"{title}, {data}, Adam, batch 20", f"{published} (quoted from memory)", kind=kind, size=(units, *size),
        data=data, **{"epochs": 400, "patience": 30, "fit": _UCI, **more},
    )  # fmt: skip


SETTINGS = {
    "fvbn-dna": _uci("FVBN", "Logistic FVBN", "dna", "83.64", **_RATES),
    "fvbn-mushrooms": _uci("FVBN", "Logistic FVBN", "mushrooms", "10.27", **_RATES),
    "nade-dna": _uci("NADE", "NADE, 500 hidden units", "dna", "84.81", (500,)),
    "nade-mushrooms": _uci("NADE", "NADE, 500 hidden units", "mushrooms", "9.81", (500,)),
    "made-dna": _uci(
        "MADE", "MADE, 500 logistic units, direct connections, 1 mask", "dna", "83.63", ((500,),),
        model={"direct": True, "activation": "logistic"}, fit={**_UCI, "weight_decay": 3e-3},
    ),
    "made-mushrooms": _uci(
        "MADE", "MADE, 500 logistic units, direct connections, 1 mask", "mushrooms", "9.68", ((500,),),
        model={"direct": True, "activation": "logistic"}, **_RATES,
    ),
    "eonade-dna": _uci(
        "EoNADE", "EoNADE, 500 logistic units, 16 orders", "dna", "82.31", ((500,),),
        model={"activation": "logistic", "n_orderings": 16}, fit={**_UCI, "weight_decay": 1e-3}, **_RATES,
    ),
    "eonade-mushrooms": _uci(
        "EoNADE", "EoNADE, 500 logistic units, 16 orders", "mushrooms", "9.69", ((500,),),
        model={"activation": "logistic", "n_orderings": 16}, lr=(3e-3, 1e-4), epochs=500, patience=100,
    ),
    "nade": Setting(
        "NADE, 500 hidden units, Adam, batch 100", "88.33 (Uria et al. 2016)", 200, 20, "NADE", (784, 500),
        fit={"batch_size": 100, "optimizer": "adam"},
    ),
    # The paper's width. It learned for longer, by AdaGrad.
    "made": Setting(
        "MADE, 8,000 hidden units, 1 mask, Adam, batch 100", "88.40 (Germain et al. 2015, quoted from memory)", 12, 10,
        "MADE", (784, (8000,)), fit={"batch_size": 100, "optimizer": "adam"}, lr=(1e-3, 3e-5),
    ),
    "pixelcnn": Setting(
        "PixelCNN, 7 blocks of h = 16, RMSProp, batch 16", "81.30 (van den Oord et al. 2016)", 120, 20, "PixelCNN",
        (28, 28), fit={"batch_size": 16, "optimizer": "rmsprop"},
    ),
    # The paper does not give its PixelCNN's width, and h = 16 underfits: 91.5 on both training and validation set.
    "pixelcnn-32": Setting(
        "PixelCNN, 7 blocks of h = 32, Adam, batch 32", "81.30 (van den Oord et al. 2016)", 20, 20, "PixelCNN",
        (28, 28), model={"n_features": 32}, fit={"batch_size": 32, "optimizer": "adam"}, lr=(2e-3, 1e-4),
    ),
    # The paper has no figure for these digits. Beside the PixelCNN: what its blind spot costs.
    "gated-pixelcnn": Setting(
        "Gated PixelCNN, 6 blocks of 32 features, Adam, batch 32", "no figure", 20, 20, "GatedPixelCNN",
        (28, 28), model={"n_features": 32}, fit={"batch_size": 32, "optimizer": "adam"}, lr=(2e-3, 1e-4),
    ),
    # What a pixel sees counts for more than width: after 940 updates with h = 16 and 10,000 images, 3x3 stand at 96.3
    # nats, 5x5 at 94.0, 7x7 at 92.2.
    "pixelcnn-7x7": Setting(
        "PixelCNN, 7 blocks of h = 16 with 7x7, Adam, batch 32", "81.30 (van den Oord et al. 2016)", 20, 20, "PixelCNN",
        (28, 28), model={"n_features": 16, "kernel_size": 7}, fit={"batch_size": 32, "optimizer": "adam"},
        lr=(2e-3, 1e-4),
    ),
    # The paper does not say how many layers its Row LSTM has: as many as its larger Diagonal BiLSTM.
    "row-lstm": Setting(
        "Row LSTM, 7 layers of h = 16, RMSProp, batch 16", "80.54 (van den Oord et al. 2016)", 60, 20, "RowLSTM",
        (28, 28), model={"n_features": 16, "n_blocks": 7}, fit={"batch_size": 16, "optimizer": "rmsprop"},
    ),
    "diagonal-bilstm": Setting(
        "Diagonal BiLSTM, 1 layer of h = 32, RMSProp, batch 16", "80.75 (van den Oord et al. 2016)", 60, 20,
        "DiagonalBiLSTM", (28, 28), model={"n_features": 32, "n_blocks": 1},
        fit={"batch_size": 16, "optimizer": "rmsprop"},
    ),
}  # fmt: skip
