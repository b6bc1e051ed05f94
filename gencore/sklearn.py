"""scikit-learn estimators on gencore's kernels: for pipelines, grid searches and whatever else takes an estimator."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore.kernels import optim
from gencore.kernels import rbm as kernels

try:
    from scipy import sparse
    from sklearn import neural_network
    from sklearn.utils import check_array, check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"gencore.sklearn needs scikit-learn 1.6 or later ({error}): pip install 'gencore[sklearn]'"
    ) from error

__all__ = ["BernoulliRBM"]

Float32Array = NDArray[np.float32]


class BernoulliRBM(neural_network.BernoulliRBM):  # type: ignore[misc]  # scikit-learn ships no types
    """Bernoulli restricted Boltzmann machine: scikit-learn's estimator, on compiled kernels.

    A drop-in for `sklearn.neural_network.BernoulliRBM`, and a subclass of it: the same parameters, methods, fitted
    attributes and learning rule (stochastic maximum likelihood, also called PCD: Tieleman 2008).

    Parameters
    ----------
    n_components : int, default 256
        Hidden units.
    learning_rate : float, default 0.1
        Step along the gradient of the mean log-likelihood.
    batch_size : int, default 10
        Rows of an update, and number of persistent chains.
    n_iter : int, default 10
        Passes over the data.
    verbose : int, default 0
        Print the pseudo-likelihood after each pass.
    random_state : int, RandomState instance or None, default None
        Initial weights, chains, samples of `gibbs`, and the unit that `score_samples` flips.

    Attributes
    ----------
    components_ : (n_components, n_features)
        Weights, in the dtype of the data, float32 or float64.
    intercept_hidden_, intercept_visible_ : (n_components,), (n_features,)
        Biases.
    h_samples_ : (batch_size, n_components)
        Hidden states of the persistent chains.
    n_features_in_ : int
        Features seen by `fit`.
    feature_names_in_ : (n_features_in_,)
        Their names, where the data has any.

    Notes
    -----
    What differs from scikit-learn's:

    - All arithmetic is float32; results are returned in the dtype of the data.
    - Random numbers are Philox's: the initial weights are those of scikit-learn for the same ``random_state``, the
      chains are not. Results do not depend on the number of threads.
    - The model's part of a gradient is a mean over the chains. scikit-learn divides their sum by the rows of the batch,
      which gives it too much weight in a short last batch.

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> rbm = gc.sklearn.BernoulliRBM(n_components=32, n_iter=2, random_state=0).fit(data.train)
    >>> rbm.transform(data.test).shape
    (256, 32)
    """

    def fit(self, X: Any, y: Any = None) -> "BernoulliRBM":
        """Learn from the data, starting anew.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Values from 0 to 1.
        y : ignored

        Returns
        -------
        self
        """
        self._validate_params()
        X = validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32))
        rng = check_random_state(self.random_state)
        learner = _Learner(self, rng, X.dtype)
        data = X if sparse.issparse(X) else _states(X)
        for iteration in range(1, self.n_iter + 1):
            begin = time.time()
            for first in range(0, X.shape[0], self.batch_size):
                learner.update(_states(data[first : first + self.batch_size]), self.learning_rate)
            if self.verbose:
                learner.publish(self)
                print(
                    f"[{type(self).__name__}] Iteration {iteration}, "
                    f"pseudo-likelihood = {self.score_samples(X).mean():.2f}, time = {time.time() - begin:.2f}s"
                )
        learner.publish(self)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> "BernoulliRBM":
        """Learn from one mini-batch, going on from the present state.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The batch, of any number of rows.
        y : ignored

        Returns
        -------
        self
        """
        self._validate_params()
        first_pass = not hasattr(self, "components_")
        X = validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=first_pass)
        if not hasattr(self, "random_state_"):
            self.random_state_ = check_random_state(self.random_state)
        if first_pass:
            _Learner(self, self.random_state_, X.dtype).publish(self)
        learner = _Learner.resumed(self)
        learner.update(_states(X), self.learning_rate)
        learner.publish(self)
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return the means of the hidden units, ``p(h = 1 | v = X)``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        (n_samples, n_components) ndarray of the dtype of X
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", reset=False, dtype=(np.float64, np.float32))
        w, _, c = _parameters(self)
        return kernels.hidden_mean(w, c, _states(X)).astype(X.dtype, copy=False)

    def gibbs(self, v: Any) -> NDArray[np.bool_]:
        """Take one Gibbs step: draw hidden units given `v`, then visible ones given those.

        Parameters
        ----------
        v : {array-like, sparse matrix} of shape (n_samples, n_features)
            Where the step starts.

        Returns
        -------
        (n_samples, n_features) ndarray of bool
        """
        check_is_fitted(self)
        if not hasattr(self, "random_state_"):
            self.random_state_ = check_random_state(self.random_state)
        key = _key(self.random_state_)
        w, b, c = _parameters(self)
        h = kernels.hidden_sample(w, c, _states(check_array(v, accept_sparse="csr")), key=key)
        return kernels.visible_sample(w, b, h, key=key).view(np.bool_)

    def score_samples(self, X: Any) -> NDArray[Any]:
        """Return a stochastic estimate of the pseudo-log-likelihood of each row.

        ``n_features log p(v_i | v without i)`` for one feature i a row, drawn anew from ``random_state`` by each call.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Values 0 and 1 (not checked).

        Returns
        -------
        (n_samples,) ndarray
            In nats; of the dtype of X where that is float32, else float64.
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        rng = check_random_state(self.random_state)
        v = _states(X)
        flipped, place = v.copy(), (np.arange(len(v)), rng.randint(0, v.shape[1], len(v)))
        flipped[place] = 1 - flipped[place]
        machine = _parameters(self)
        rise = kernels.free_energy(*machine, flipped) - kernels.free_energy(*machine, v)
        scores: NDArray[np.float64] = -v.shape[1] * np.logaddexp(0, -rise)
        return scores.astype(np.float32 if X.dtype == np.float32 else np.float64, copy=False)


class _Learner:
    """Parameters in the layout of the kernels, and persistent chains: what `fit` works on.

    The chains are held as visible states; ``h_samples_`` are the hidden states that the next update draws from them.
    """

    def __init__(self, estimator: BernoulliRBM, rng: np.random.RandomState, dtype: Any) -> None:
        n_hidden, n_visible = estimator.n_components, estimator.n_features_in_
        self.dtype = dtype
        self.w = rng.normal(0, 0.01, (n_hidden, n_visible)).T.astype(np.float32, order="C")
        self.b, self.c = np.zeros(n_visible, np.float32), np.zeros(n_hidden, np.float32)
        self.key, self.step = _key(rng), 1
        no_hidden = np.zeros((estimator.batch_size, n_hidden), np.uint8)
        self.chains = kernels.visible_sample(self.w, self.b, no_hidden, key=self.key)
        self.buffers: dict[int, kernels.CdGradient] = {}

    @classmethod
    def resumed(cls, estimator: BernoulliRBM) -> "_Learner":
        """As `publish` left it; parameters that the user has assigned since are taken as they are."""
        learner = cls.__new__(cls)
        learner.dtype = estimator.components_.dtype
        learner.w, learner.b, learner.c = (p.copy() for p in _parameters(estimator))
        learner.key, learner.step, learner.chains = estimator._chain_state
        learner.buffers = {}
        return learner

    def update(self, batch: NDArray[Any], learning_rate: float) -> None:
        """One step along the PCD gradient."""
        gradient = kernels.cd_gradient(
            self.w, self.b, self.c, batch, key=self.key, first_step=self.step, chains=self.chains,
            out=self.buffers.get(len(batch)),
        )  # fmt: skip
        self.buffers[len(batch)] = gradient
        self.chains = gradient.chains
        self.step += 1
        optim.sgd(self.w, gradient.weight, lr=learning_rate)
        optim.sgd(self.b, gradient.visible_bias, lr=learning_rate)
        optim.sgd(self.c, gradient.hidden_bias, lr=learning_rate)

    def publish(self, estimator: BernoulliRBM) -> None:
        """Set the fitted attributes."""
        h = kernels.hidden_sample(self.w, self.c, self.chains, key=self.key, step=self.step)
        estimator.components_ = self.w.T.astype(self.dtype)
        estimator.intercept_visible_ = self.b.astype(self.dtype)
        estimator.intercept_hidden_ = self.c.astype(self.dtype)
        estimator.h_samples_ = h.astype(self.dtype)
        estimator._n_features_out = len(self.c)
        estimator._chain_state = self.key, self.step, self.chains.copy()


def _parameters(estimator: BernoulliRBM) -> tuple[Float32Array, Float32Array, Float32Array]:
    """``w, b, c`` as kernels take them."""
    return (
        np.ascontiguousarray(estimator.components_.T, np.float32),
        np.ascontiguousarray(estimator.intercept_visible_, np.float32),
        np.ascontiguousarray(estimator.intercept_hidden_, np.float32),
    )


def _states(X: Any) -> NDArray[Any]:
    """Rows as kernels take them: uint8 where they are binary, else float32."""
    rows: NDArray[Any] = X.toarray() if sparse.issparse(X) else X
    if rows.dtype == np.uint8 and rows.max(initial=0) <= 1:
        return rows
    binary = ((rows == 0) | (rows == 1)).all()
    return np.ascontiguousarray(rows, np.uint8 if binary else np.float32)


def _key(rng: np.random.RandomState) -> int:
    return int(rng.randint(2**63, dtype=np.int64))
