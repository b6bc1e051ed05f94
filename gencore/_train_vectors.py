"""What `gencore train nade`, `made`, `fvbn` and `eonade` can be asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gencore import _arguments as types
from gencore import _commands
from gencore import _train_options as options

_ACTIVATIONS = ("relu", "softplus", "logistic", "tanh")


def add_vectors(models: Any) -> None:
    """`gencore train nade`, `made`, `fvbn` and `eonade`."""
    nade = _add_vector_model(
        models,
        "nade",
        "each unit given those before it, by one hidden layer whose weights all share",
        "a neural autoregressive distribution estimator (NADE)",
        "--hidden 500",
        _commands.train_nade,
    )
    nade("--hidden", type=types.units, default=500, metavar="N", help="hidden units")
    made = _add_vector_model(
        models,
        "made",
        "each unit given those before it, by a net with masks",
        "a masked autoencoder (MADE)",
        "--hidden 500 --masks 8 --order random",
        _commands.train_made,
    )
    _add_hidden(made, types.some_layers, "500", "units of the hidden layers")
    made(
        "--masks",
        type=types.count,
        default=1,
        metavar="N",
        help="masks, which updates take in turn and whose probabilities are averaged",
    )
    made(
        "--order",
        choices=("natural", "random"),
        default="natural",
        help="of units: as they lie, or each mask's own",
    )
    made(
        "--direct", action="store_true", help="connect units to those after them past the hidden layers, too"
    )
    made("--activation", choices=_ACTIVATIONS, default="relu", help="of hidden units")
    fvbn = _add_vector_model(
        models,
        "fvbn",
        "each unit given those before it, by weights of its own",
        "a fully visible Bayes net (FVBN)",
        "--hidden 10",
        _commands.train_fvbn,
    )
    _add_hidden(
        fvbn, types.layer_sizes, "none", "hidden units for each unit, in each layer; none: a logistic net"
    )
    fvbn(
        "--activation",
        choices=(*_ACTIVATIONS, "identity"),
        default="tanh",
        help="of hidden units; identity: a linear net",
    )
    eonade = _add_vector_model(
        models,
        "eonade",
        "each unit given any others, by a deep net: all orders at once",
        "an orderless deep NADE (EoNADE)",
        "--hidden 500,500 --orderings 8",
        _commands.train_eonade,
    )
    _add_hidden(eonade, types.some_layers, "500,500", "units of the hidden layers")
    eonade(
        "--orderings",
        type=types.count,
        default=16,
        metavar="N",
        help="orders whose probabilities are averaged, at so many times the cost of an evaluation",
    )
    eonade("--activation", choices=_ACTIVATIONS, default="relu", help="of hidden units")


def _add_hidden(add: Callable[..., Any], layers: Callable[[str], Any], default: str, text: str) -> None:
    add("--hidden", type=layers, default=default, metavar="N[,N]", help=text)


def _add_vector_model(
    models: Any, name: str, summary: str, full_name: str, example: str, run: Callable[[Any], int]
) -> Callable[..., Any]:
    """Add a parser with all that these models share; returns what adds options of the model's own."""
    p = models.add_parser(
        name,
        help=summary,
        description=f"""\
Train {full_name} on rows of 0 and 1, by maximum
likelihood. The file that --out names is written after each epoch, or every
--checkpoint-every updates, and holds all that --resume needs to go on to the
same bits.""",
        epilog=f"""\
Example: the static binarisation of MNIST
  gencore train {name} --data binarized_mnist \\
      {example} \\
      --samples samples.png --out {name}.safetensors
  gencore evaluate {name}.safetensors --data binarized_mnist

{options.DATA_HELP}""",
    )
    options.add_data(p)
    options._add_out(p)
    model: Callable[..., Any] = p.add_argument_group("model").add_argument
    model("--classes", action="store_true", help="learn the rows of each class; the data must have labels")
    learning = p.add_argument_group("learning")
    options._add_passes(learning, epochs=50, batch_size=100)
    options._add_learning_rate(learning, lr=0.001)
    options._add_optimizer(learning, "adam", watched="log-likelihood")
    learning.add_argument(
        "--weight-decay",
        type=types.not_negative,
        default=0.0,
        metavar="X",
        help="half this times the squares of the weights is added to the loss",
    )
    options.add_shape(options._add_pictures(p))
    options._add_run(p)
    p.set_defaults(run=run)
    return model
