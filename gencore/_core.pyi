"""Compiled kernels. Written by csrc/python/stub.py; do not edit."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = Any
"""A NumPy array, or one that speaks DLPack."""

Arrays: TypeAlias = list[Any] | tuple[Any, ...]
"""Several of them."""

signatures: dict[str, dict[str, str]]

def version() -> str: ...
def isa() -> str: ...
def isa_levels() -> list[str]: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def release_scratch() -> None: ...
def measure_fma_peak(seconds: float) -> float: ...
def philox(key: int, counter: Sequence[int]) -> list[int]: ...
def fingerprint(array: Array) -> int: ...

class Memory: ...

def empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]: ...
def dense_matmul(
    *,
    a: Array | None = None,
    b: Array | None = None,
    bias: Array | None = None,
    out: Array | None = None,
    transpose_a: bool | None = None,
    transpose_b: bool | None = None,
    activation: int | None = None,
) -> None: ...
def dense_linear_vjp(
    *,
    grad: Array | None = None,
    x: Array | None = None,
    w: Array | None = None,
    y: Array | None = None,
    grad_x: Array | None = None,
    grad_w: Array | None = None,
    grad_bias: Array | None = None,
    grad_z: Array | None = None,
    activation: int | None = None,
) -> None: ...
def dense_bernoulli_log_prob(
    *,
    logits: Array | None = None,
    targets: Array | None = None,
    out: Array | None = None,
) -> None: ...
def dense_bernoulli_log_prob_vjp(
    *,
    grad: Array | None = None,
    logits: Array | None = None,
    targets: Array | None = None,
    grad_logits: Array | None = None,
) -> None: ...
def dense_softmax_cross_entropy(
    *,
    logits: Array | None = None,
    labels: Array | None = None,
    out: Array | None = None,
) -> None: ...
def dense_softmax_cross_entropy_vjp(
    *,
    grad: Array | None = None,
    logits: Array | None = None,
    labels: Array | None = None,
    grad_logits: Array | None = None,
) -> None: ...
def dense_log_sum_exp(
    *,
    x: Array | None = None,
    out: Array | None = None,
) -> None: ...
def dense_log_sum_exp_vjp(
    *,
    grad: Array | None = None,
    x: Array | None = None,
    grad_x: Array | None = None,
) -> None: ...
def dense_logistic_mixture_log_prob(
    *,
    params: Array | None = None,
    x: Array | None = None,
    levels: int | None = None,
    n_mixtures: int | None = None,
    out: Array | None = None,
) -> None: ...
def dense_logistic_mixture_log_prob_vjp(
    *,
    grad: Array | None = None,
    params: Array | None = None,
    x: Array | None = None,
    levels: int | None = None,
    n_mixtures: int | None = None,
    grad_params: Array | None = None,
) -> None: ...
def sample_uniform(
    *,
    out: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_normal(
    *,
    out: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_exponential(
    *,
    out: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_bernoulli(
    *,
    p: Array | None = None,
    out: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_bernoulli_bits(
    *,
    p: Array | None = None,
    out: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_categorical(
    *,
    logits: Array | None = None,
    out: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_gaussian_reparam(
    *,
    mu: Array | None = None,
    logvar: Array | None = None,
    samples: int | None = None,
    z: Array | None = None,
    kl: Array | None = None,
    log_ratio: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_gaussian_reparam_vjp(
    *,
    mu: Array | None = None,
    logvar: Array | None = None,
    samples: int | None = None,
    grad_z: Array | None = None,
    grad_kl: Array | None = None,
    grad_log_ratio: Array | None = None,
    grad_mu: Array | None = None,
    grad_logvar: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_gaussian_log_prob(
    *,
    x: Array | None = None,
    mu: Array | None = None,
    logvar: Array | None = None,
    samples: int | None = None,
    out: Array | None = None,
) -> None: ...
def sample_gaussian_log_prob_vjp(
    *,
    grad: Array | None = None,
    x: Array | None = None,
    mu: Array | None = None,
    logvar: Array | None = None,
    samples: int | None = None,
    grad_x: Array | None = None,
    grad_mu: Array | None = None,
    grad_logvar: Array | None = None,
) -> None: ...
def sample_location_scale(
    *,
    loc: Array | None = None,
    scale: Array | None = None,
    kind: int | None = None,
    out: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_location_scale_vjp(
    *,
    grad: Array | None = None,
    y: Array | None = None,
    kind: int | None = None,
    grad_loc: Array | None = None,
    grad_scale: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_gumbel_softmax(
    *,
    logits: Array | None = None,
    hard: bool | None = None,
    y: Array | None = None,
    tau: float | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_gumbel_softmax_vjp(
    *,
    grad: Array | None = None,
    y: Array | None = None,
    logits: Array | None = None,
    grad_logits: Array | None = None,
    tau: float | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_relaxed_bernoulli(
    *,
    logits: Array | None = None,
    hard: bool | None = None,
    y: Array | None = None,
    tau: float | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def sample_relaxed_bernoulli_vjp(
    *,
    grad: Array | None = None,
    y: Array | None = None,
    logits: Array | None = None,
    grad_logits: Array | None = None,
    tau: float | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def rbm_gibbs_chain(
    *,
    w: Array | None = None,
    b: Array | None = None,
    c: Array | None = None,
    v: Array | None = None,
    v_out: Array | None = None,
    steps: int | None = None,
    key: int | None = None,
    beta: Array | None = None,
    clamp: Array | None = None,
    first_step: int | None = None,
    first_row: int | None = None,
    precision: int | None = None,
) -> None: ...
def rbm_hidden_mean(
    *,
    w: Array | None = None,
    c: Array | None = None,
    v: Array | None = None,
    out: Array | None = None,
    beta: float | None = None,
) -> None: ...
def rbm_visible_mean(
    *,
    w: Array | None = None,
    b: Array | None = None,
    h: Array | None = None,
    out: Array | None = None,
    beta: float | None = None,
) -> None: ...
def rbm_hidden_sample(
    *,
    w: Array | None = None,
    c: Array | None = None,
    v: Array | None = None,
    out: Array | None = None,
    beta: float | None = None,
    key: int | None = None,
    step: int | None = None,
    first_row: int | None = None,
) -> None: ...
def rbm_visible_sample(
    *,
    w: Array | None = None,
    b: Array | None = None,
    h: Array | None = None,
    out: Array | None = None,
    beta: float | None = None,
    key: int | None = None,
    step: int | None = None,
    first_row: int | None = None,
) -> None: ...
def rbm_free_energy(
    *,
    w: Array | None = None,
    b: Array | None = None,
    c: Array | None = None,
    v: Array | None = None,
    out: Array | None = None,
    beta: float | None = None,
) -> None: ...
def rbm_cd_gradient(
    *,
    w: Array | None = None,
    b: Array | None = None,
    c: Array | None = None,
    v: Array | None = None,
    chains: Array | None = None,
    chains_out: Array | None = None,
    k: int | None = None,
    key: int | None = None,
    first_step: int | None = None,
    offset_v: Array | None = None,
    offset_h: Array | None = None,
    grad_w: Array | None = None,
    grad_b: Array | None = None,
    grad_c: Array | None = None,
    mean_v: Array | None = None,
    mean_h: Array | None = None,
) -> None: ...
def rbm_log_partition_exact(
    *,
    w: Array | None = None,
    b: Array | None = None,
    c: Array | None = None,
    out: Array | None = None,
) -> None: ...
def rbm_ais(
    *,
    w: Array | None = None,
    b: Array | None = None,
    c: Array | None = None,
    betas: Array | None = None,
    base_bias: Array | None = None,
    start: Array | None = None,
    log_weights: Array | None = None,
    v_out: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
) -> None: ...
def rbm_pseudo_log_likelihood(
    *,
    w: Array | None = None,
    b: Array | None = None,
    c: Array | None = None,
    v: Array | None = None,
    out: Array | None = None,
) -> None: ...
def rbm_stochastic_pseudo_log_likelihood(
    *,
    w: Array | None = None,
    b: Array | None = None,
    c: Array | None = None,
    v: Array | None = None,
    out: Array | None = None,
    key: int | None = None,
    step: int | None = None,
    first_row: int | None = None,
) -> None: ...
def conv_conv2d(
    *,
    x: Array | None = None,
    w: Array | None = None,
    bias: Array | None = None,
    out: Array | None = None,
    activation: int | None = None,
    stride_h: int | None = None,
    stride_w: int | None = None,
    pad_top: int | None = None,
    pad_left: int | None = None,
    mask: int | None = None,
    channel_groups: int | None = None,
) -> None: ...
def conv_conv2d_input(
    *,
    grad: Array | None = None,
    w: Array | None = None,
    out: Array | None = None,
    stride_h: int | None = None,
    stride_w: int | None = None,
    pad_top: int | None = None,
    pad_left: int | None = None,
    mask: int | None = None,
    channel_groups: int | None = None,
) -> None: ...
def conv_conv2d_weight(
    *,
    x: Array | None = None,
    grad: Array | None = None,
    out: Array | None = None,
    stride_h: int | None = None,
    stride_w: int | None = None,
    pad_top: int | None = None,
    pad_left: int | None = None,
    mask: int | None = None,
    channel_groups: int | None = None,
) -> None: ...
def conv_pixel_sample(
    *,
    layers: Array | None = None,
    params: Arrays | None = None,
    channel_groups: int | None = None,
    n_classes: int | None = None,
    labels: Array | None = None,
    levels: int | None = None,
    n_mixtures: int | None = None,
    temperature: float | None = None,
    given: Array | None = None,
    keep: Array | None = None,
    out: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def conv_pixel_draw(
    *,
    logits: Array | None = None,
    levels: int | None = None,
    n_mixtures: int | None = None,
    unit: int | None = None,
    temperature: float | None = None,
    out: Array | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def conv_stack_forward(
    *,
    layers: Array | None = None,
    params: Arrays | None = None,
    channel_groups: int | None = None,
    n_classes: int | None = None,
    labels: Array | None = None,
    x: Array | None = None,
    causal: bool | None = None,
    out: Array | None = None,
) -> None: ...
def conv_stack_vjp(
    *,
    layers: Array | None = None,
    params: Arrays | None = None,
    channel_groups: int | None = None,
    n_classes: int | None = None,
    labels: Array | None = None,
    x: Array | None = None,
    grad: Array | None = None,
    grads: Arrays | None = None,
) -> None: ...
def conv_stack_log_prob_vjp(
    *,
    layers: Array | None = None,
    params: Arrays | None = None,
    channel_groups: int | None = None,
    n_classes: int | None = None,
    labels: Array | None = None,
    levels: int | None = None,
    n_mixtures: int | None = None,
    images: Array | None = None,
    grad: Array | None = None,
    out: Array | None = None,
    grads: Arrays | None = None,
) -> None: ...
def optim_sgd(
    *,
    param: Array | None = None,
    grad: Array | None = None,
    velocity: Array | None = None,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
) -> None: ...
def optim_sgd_step(
    *,
    params: Arrays | None = None,
    grads: Arrays | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    maximize: bool | None = None,
    momentum_buffers: Arrays | None = None,
    momentum: float | None = None,
    dampening: float | None = None,
    nesterov: bool | None = None,
) -> None: ...
def optim_rmsprop_step(
    *,
    params: Arrays | None = None,
    grads: Arrays | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    maximize: bool | None = None,
    square_avgs: Arrays | None = None,
    grad_avgs: Arrays | None = None,
    momentum_buffers: Arrays | None = None,
    alpha: float | None = None,
    eps: float | None = None,
    momentum: float | None = None,
) -> None: ...
def optim_adagrad_step(
    *,
    params: Arrays | None = None,
    grads: Arrays | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    maximize: bool | None = None,
    state_sums: Arrays | None = None,
    step: int | None = None,
    lr_decay: float | None = None,
    eps: float | None = None,
) -> None: ...
def optim_adadelta_step(
    *,
    params: Arrays | None = None,
    grads: Arrays | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    maximize: bool | None = None,
    square_avgs: Arrays | None = None,
    acc_deltas: Arrays | None = None,
    rho: float | None = None,
    eps: float | None = None,
) -> None: ...
def optim_adam_step(
    *,
    params: Arrays | None = None,
    grads: Arrays | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    maximize: bool | None = None,
    exp_avgs: Arrays | None = None,
    exp_avg_sqs: Arrays | None = None,
    max_exp_avg_sqs: Arrays | None = None,
    step: int | None = None,
    beta1: float | None = None,
    beta2: float | None = None,
    eps: float | None = None,
    decoupled: bool | None = None,
) -> None: ...
def optim_ema_update(
    *,
    averages: Arrays | None = None,
    params: Arrays | None = None,
    decay: float | None = None,
) -> None: ...
def optim_square_sum(
    *,
    arrays: Arrays | None = None,
    out: Array | None = None,
) -> None: ...
def optim_scale(
    *,
    arrays: Arrays | None = None,
    factor: float | None = None,
) -> None: ...
def autoregressive_nade_log_prob(
    *,
    x: Array | None = None,
    w: Array | None = None,
    c: Array | None = None,
    v: Array | None = None,
    b: Array | None = None,
    order: Array | None = None,
    out: Array | None = None,
    logits: Array | None = None,
) -> None: ...
def autoregressive_nade_log_prob_vjp(
    *,
    grad: Array | None = None,
    x: Array | None = None,
    w: Array | None = None,
    c: Array | None = None,
    v: Array | None = None,
    b: Array | None = None,
    order: Array | None = None,
    logits: Array | None = None,
    grad_w: Array | None = None,
    grad_c: Array | None = None,
    grad_v: Array | None = None,
    grad_b: Array | None = None,
) -> None: ...
def autoregressive_nade_sample(
    *,
    w: Array | None = None,
    c: Array | None = None,
    v: Array | None = None,
    b: Array | None = None,
    order: Array | None = None,
    out: Array | None = None,
    given: Array | None = None,
    mask: Array | None = None,
    temperature: float | None = None,
    key: int | None = None,
    first_row: int | None = None,
    step: int | None = None,
) -> None: ...
def autoregressive_masked_linear(
    *,
    x: Array | None = None,
    w: Array | None = None,
    bias: Array | None = None,
    in_degree: Array | None = None,
    out_degree: Array | None = None,
    strict: bool | None = None,
    out: Array | None = None,
    activation: int | None = None,
) -> None: ...
def autoregressive_masked_linear_input(
    *,
    grad: Array | None = None,
    w: Array | None = None,
    in_degree: Array | None = None,
    out_degree: Array | None = None,
    strict: bool | None = None,
    out: Array | None = None,
) -> None: ...
def autoregressive_masked_linear_weight(
    *,
    x: Array | None = None,
    grad: Array | None = None,
    in_degree: Array | None = None,
    out_degree: Array | None = None,
    strict: bool | None = None,
    out: Array | None = None,
) -> None: ...
def autoregressive_masked_sample(
    *,
    degrees: Arrays | None = None,
    weights: Arrays | None = None,
    biases: Arrays | None = None,
    direct: Array | None = None,
    activation: int | None = None,
    noise: Array | None = None,
    given: Array | None = None,
    mask: Array | None = None,
    out: Array | None = None,
) -> None: ...
def recurrent_lstm(
    *,
    x: Array | None = None,
    w_input: Array | None = None,
    w_hidden: Array | None = None,
    bias: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    h: Array | None = None,
    c: Array | None = None,
    gates: Array | None = None,
    cells: Array | None = None,
) -> None: ...
def recurrent_lstm_vjp(
    *,
    grad_h: Array | None = None,
    grad_c: Array | None = None,
    x: Array | None = None,
    w_input: Array | None = None,
    w_hidden: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    h: Array | None = None,
    gates: Array | None = None,
    cells: Array | None = None,
    grad_x: Array | None = None,
    grad_w_input: Array | None = None,
    grad_w_hidden: Array | None = None,
    grad_bias: Array | None = None,
    grad_h0: Array | None = None,
    grad_c0: Array | None = None,
) -> None: ...
def recurrent_map_lstm(
    *,
    z: Array | None = None,
    w: Array | None = None,
    path: int | None = None,
    h: Array | None = None,
    gates: Array | None = None,
    cells: Array | None = None,
) -> None: ...
def recurrent_map_lstm_vjp(
    *,
    grad_h: Array | None = None,
    w: Array | None = None,
    path: int | None = None,
    h: Array | None = None,
    gates: Array | None = None,
    cells: Array | None = None,
    grad_z: Array | None = None,
    grad_w: Array | None = None,
) -> None: ...
def recurrent_lstm_cell(
    *,
    input: Array | None = None,
    state: Array | None = None,
    before: Array | None = None,
    h: Array | None = None,
    c: Array | None = None,
) -> None: ...
