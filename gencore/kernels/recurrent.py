"""Long short-term memory along sequences, and along the rows and diagonals of images.

A cell with H units goes from its sums z (4H,), of the gates i, f, g and o one after the other (PyTorch's order), and
its state before to the next: ``i = logistic(z_i)``, ``f = logistic(z_f)``, ``g = tanh(z_g)``, ``o = logistic(z_o)``,
``c = f c_before + i g``, ``h = o tanh(c)``.

Weights are (inputs, 4H), as everywhere here: PyTorch's are the transposes, and its two biases are one.

Arrays may be CuPy's, or others with ``__cuda_array_interface__``: results are made on their device, kernels are queued
on CuPy's (or PyTorch's) current stream, and nothing waits for them. `map_lstm` and `lstm_cell` have the CPU's bits
there (of a level with fused multiply-add); in `lstm` the sums over inputs and over states are taken apart.
"""

from gencore.kernels._lstm import lstm, lstm_cell
from gencore.kernels._map_lstm import (
    Path,
    both_sweeps,
    diagonal_bilstm,
    diagonal_lstm,
    input_to_state,
    lstm_of_map,
    map_lstm,
    row_lstm,
)

__all__ = [
    "Path",
    "both_sweeps",
    "diagonal_bilstm",
    "diagonal_lstm",
    "input_to_state",
    "lstm",
    "lstm_cell",
    "lstm_of_map",
    "map_lstm",
    "row_lstm",
]
