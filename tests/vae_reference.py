"""Small variational autoencoders in float64, by sums and integrals over all latents: what tests compare with.

Parameters are a dict of arrays by the model's dotted names, so that a gradient is a difference of two evaluations.
"""

import itertools

import numpy as np

# Trapezoid rules, whose error falls as exp(-2 pi d / spacing), d the distance of the integrand's poles from the real
# line: those of tanh(w z) at pi / (2 w), or pi / (2 w s) for the noise of a posterior of std s. Gauss-Hermite nodes
# would not do for w s = 10.
NOISE = np.linspace(-8, 8, 321)
GRID = np.linspace(-9, 9, 1201)


def parameters(model):
    return {name: p.numpy().astype(np.float64) for name, p in model.named_parameters()}


def log_normal(x, mean, logvar):
    return -0.5 * (np.log(2 * np.pi) + logvar + (x - mean) ** 2 / np.exp(logvar))


def log_sum_exp(x, axis=None):
    top = x.max(axis=axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(x - top).sum(axis=axis)) if axis is not None else (
        top.item() + np.log(np.exp(x - top).sum()))  # fmt: skip


class Reference:
    """The densities of a model; tanh nets with one hidden layer or none."""

    def __init__(self, model):
        self.kind, self.likelihood = model.latents[0].kind, model.likelihood.kind
        self.n_classes = getattr(model.latents[0], "n_classes", None)
        self.widths = [z.width for z in model.latents]
        self.n_visible = model.n_visible

    def heads(self, p, net, x):
        if f"{net}.trunk.0.weight" in p:
            x = np.tanh(x @ p[f"{net}.trunk.0.weight"] + p[f"{net}.trunk.0.bias"])
        outs = []
        for i in range(2):
            if f"{net}.heads.{i}.weight" in p:
                out = x @ p[f"{net}.heads.{i}.weight"] + p[f"{net}.heads.{i}.bias"]
                outs.append(out if i == 0 else np.clip(out, -12, 8))
        return outs

    def log_likelihoods(self, p, x, z):
        """Log p(x | z) for rows x and rows z: (n_z, n_x)."""
        heads = self.heads(p, "decoders.0", z)
        if self.likelihood == "bernoulli":
            logits = heads[0]
            return logits @ x.T - np.logaddexp(0, logits).sum(1)[:, None]
        return log_normal(x[None], heads[0][:, None], heads[1][:, None]).sum(-1)

    # --- discrete latents: all states

    def states(self):
        if self.kind == "bernoulli":
            return np.array(list(itertools.product([0.0, 1.0], repeat=self.widths[0])))
        groups = self.widths[0] // self.n_classes
        one_hot = np.eye(self.n_classes)
        return np.array([np.concatenate([one_hot[c] for c in classes])
                         for classes in itertools.product(range(self.n_classes), repeat=groups)])  # fmt: skip

    def log_posteriors(self, p, x, z):
        """Log q(z | x) for all states: (n_z, n_x)."""
        logits = self.heads(p, "encoders.0", x)[0]
        if self.kind == "bernoulli":
            return z @ logits.T - np.logaddexp(0, logits).sum(1)
        grouped = logits.reshape(len(x), -1, self.n_classes)
        log_p = grouped - np.log(np.exp(grouped).sum(-1, keepdims=True))
        return z @ log_p.reshape(len(x), -1).T

    def enumerated(self, p, x):
        """States, their log q(z | x) and log p(x, z)."""
        z = self.states()
        return z, self.log_posteriors(p, x, z), self.log_likelihoods(p, x, z) - np.log(len(z))

    # --- one Gaussian latent layer: nodes of a quadrature over q, and of one over the prior

    def nodes(self, p, x):
        """Nodes z of one row's posterior with their weights, log q and log p(x, z)."""
        mean, logvar = (h[0] for h in self.heads(p, "encoders.0", x[None]))
        noise = np.array(list(itertools.product(NOISE, repeat=self.widths[0])))
        weight = np.exp(-0.5 * np.square(noise).sum(1))
        z = mean + np.exp(logvar / 2) * noise
        log_q = log_normal(z, mean, logvar).sum(1)
        joint = self.log_likelihoods(p, x[None], z)[:, 0] + log_normal(z, 0, 0).sum(1)
        return z, weight / weight.sum(), log_q, joint

    def grid(self):
        """Points z and log of their volume."""
        points = GRID if self.widths[0] == 1 else GRID[::8]
        z = np.array(list(itertools.product(points, repeat=self.widths[0])))
        return z, self.widths[0] * np.log(points[1] - points[0])

    # --- what follows

    def log_evidence(self, p, x):
        """Log p(x), (n,), and the variance of a weight p(x, z) / (q(z | x) p(x)), (n,)."""
        if self.kind != "gaussian":
            _, log_q, joint = self.enumerated(p, x)
            volume = 0.0
        else:
            z, volume = self.grid()
            joint = self.log_likelihoods(p, x, z) + log_normal(z, 0, 0).sum(1)[:, None]
            mean, logvar = self.heads(p, "encoders.0", x)
            log_q = log_normal(z[:, None], mean[None], logvar[None]).sum(-1)
        evidence = log_sum_exp(joint, axis=0) + volume
        second = log_sum_exp(2 * joint - log_q, axis=0) + volume
        return evidence, np.exp(second - 2 * evidence) - 1

    def divergence(self, p, x):
        """KL(q || prior), (n,)."""
        if self.kind != "gaussian":
            z, log_q, _ = self.enumerated(p, x)
            return (np.exp(log_q) * (log_q + np.log(len(z)))).sum(0)
        mean, logvar = self.heads(p, "encoders.0", x)
        return 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum(1)

    def expected_log_likelihood(self, p, x):
        """E_q log p(x | z), (n,)."""
        if self.kind != "gaussian":
            z, log_q, _ = self.enumerated(p, x)
            return (np.exp(log_q) * self.log_likelihoods(p, x, z)).sum(0)
        found = []
        for row in x:
            z, weight, _, _ = self.nodes(p, row)
            found.append(weight @ self.log_likelihoods(p, row[None], z)[:, 0])
        return np.array(found)

    def bound(self, p, x, kl_weight=1.0):
        """The ELBO, (n,)."""
        return self.expected_log_likelihood(p, x) - kl_weight * self.divergence(p, x)

    def bound_of_two(self, p, x):
        """E log mean of two weights, (n,)."""
        found = []
        for row in x:
            _, weight, log_q, joint = self.nodes(p, row)
            w = joint - log_q
            found.append(weight @ (np.logaddexp(w[:, None], w[None]) - np.log(2)) @ weight)
        return np.array(found)

    def dreams(self, p):
        """E_p(x, z) log q(z | x), by the decoder's x and z of `p`, as a function of the encoder's parameters."""
        x = np.array(list(itertools.product([0.0, 1.0], repeat=self.n_visible)))
        z = self.states()
        weight = np.exp(self.log_likelihoods(p, x, z) - np.log(len(z)))
        return lambda q: (weight * self.log_posteriors(q, x, z)).sum()


class TwoLayers(Reference):
    """Two layers of one Gaussian unit each: x, z1 of encoders.0 and decoders.1, z2 of encoders.1."""

    noise = NOISE[::4]
    weight = np.exp(log_normal(noise, 0, 0)) * (noise[1] - noise[0])

    def normal(self, p, net, rows):
        """Mean and log-variance of the unit that a net describes, (n,); rows are (n, units) or, of one unit, (n,)."""
        return (h[:, 0] for h in self.heads(p, net, rows.reshape(len(rows), -1)))

    def spread(self, mean, logvar):
        """Nodes of the normals that rows describe, (n, nodes)."""
        return mean[:, None] + np.exp(logvar / 2)[:, None] * self.noise

    def wake(self, p, x):
        """E_q log p(x, z1, z2), mean over rows, as a function of the decoder's parameters."""
        nodes = []
        for row in x:
            z1 = self.spread(*self.normal(p, "encoders.0", row[None]))[0]
            nodes.append((row, z1, self.spread(*self.normal(p, "encoders.1", z1))))

        def mean_joint(q):
            found = []
            for row, z1, z2 in nodes:
                mean, logvar = (h.reshape(z2.shape) for h in self.normal(q, "decoders.1", z2.ravel()))
                of_z2 = (log_normal(z1[:, None], mean, logvar) + log_normal(z2, 0, 0)) @ self.weight
                found.append(self.weight @ (of_z2 + self.log_likelihoods(q, row[None], z1[:, None])[:, 0]))
            return np.mean(found)

        return mean_joint

    def dreams(self, p):
        """E_p(x, z1, z2) log q(z1, z2 | x), as a function of the encoder's parameters."""
        x = np.array(list(itertools.product([0.0, 1.0], repeat=self.n_visible)))
        z2 = np.repeat(self.noise, len(self.noise))
        z1 = self.spread(*self.normal(p, "decoders.1", self.noise)).ravel()
        weight = np.outer(self.weight, self.weight).ravel()
        joint = weight[:, None] * np.exp(self.log_likelihoods(p, x, z1[:, None]))

        def mean_log_q(q):
            of_z1 = (joint * log_normal(z1[:, None], *self.normal(q, "encoders.0", x))).sum()
            return of_z1 + weight @ log_normal(z2, *self.normal(q, "encoders.1", z1))

        return mean_log_q


def gradient(function, p, prefix=""):
    """Gradient of a function of the parameters, by central differences: one flat array."""
    found = []
    for name, value in p.items():
        for i in np.ndindex(value.shape):
            if not name.startswith(prefix):
                continue
            ends = []
            for step in (1e-5, -1e-5):
                moved = value.copy()
                moved[i] += step
                ends.append(function(p | {name: moved}))
            found.append((ends[0] - ends[1]) / 2e-5)
    return np.array(found)
