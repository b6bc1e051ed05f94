"""Neural networks: modules with parameters, layers, and initial values (`gencore.nn.init`)."""

from gencore.nn import init
from gencore.nn.convolutions import Conv2d, ConvTranspose2d, MaskedConv2d
from gencore.nn.layers import (
    BatchNorm,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    Logistic,
    ReLU,
    Sequential,
    Softplus,
    Tanh,
    mlp,
)  # fmt: skip
from gencore.nn.module import Module
from gencore.nn.recurrent import LSTM

__all__ = [
    "LSTM", "BatchNorm", "Conv2d", "ConvTranspose2d", "Dropout", "Embedding", "LayerNorm", "Linear", "Logistic",
    "MaskedConv2d", "Module", "ReLU", "Sequential", "Softplus", "Tanh", "init", "mlp",
]  # fmt: skip
