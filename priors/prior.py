"""What every prior offers."""

import numpy as np
import tensorflow as tf


class Prior:
    """A distribution p(z) over codes, and p(z | label) where the label says something about the code.

    Every draw is a pure function of its arguments: the same `seed` gives the same sample, so whoever
    draws twice must pass two seeds (the models derive theirs from the training step).

    Args:
        n_z: size of the code.
        n_classes: number of labels K; label-dependent priors have one component or region per label.
    """

    # How often each label is drawn, a variable (K,), where a model learns it; None for equally often.
    label_shares = None

    def __init__(self, n_z, n_classes):
        self.n_z = n_z
        self.n_classes = n_classes

    @property
    def uses_labels(self):
        """Whether p(z | label) differs from p(z)."""
        return True

    def sample(self, count, seed, labels=None):
        """Draws codes.

        Args:
            count: number of codes B, an int or a scalar integer tensor.
            seed: integer tensor of shape (2,), as for `tf.random.stateless_*`.
            labels: integer tensor (B,) to draw from p(z | label), or None to draw from p(z).

        Returns:
            float32 tensor (B, n_z).
        """
        raise NotImplementedError

    def sample_labels(self, count, seed):
        """Draws `count` labels with equal probability, or with their shares: int32 tensor (count,)."""
        if self.label_shares is not None:
            logits = tf.math.log(tf.convert_to_tensor(self.label_shares))[None]
            return tf.random.stateless_categorical(logits, count, seed, tf.int32)[0]
        return tf.random.stateless_uniform([count], seed, 0, self.n_classes, tf.int32)

    def log_prob(self, codes, labels=None):
        """Log p(z), or log p(z | label), in nats: float32 (B, n_z) -> (B,)."""
        raise NotImplementedError(f"{type(self).__name__} has no density on the plane.")

    def classify(self, codes):
        """The label whose component or region holds each code: float32 (B, n_z) -> int32 (B,)."""
        raise NotImplementedError

    def percentile_grid(self, n, seed=0):
        """A grid of codes over the support of a 2-D prior, for manifold pictures (paper, section 2).

        Rows and columns are the percentiles (i + 1/2) / n of the two marginals, so that every prior
        fills the picture with codes that it really produces, whatever its shape.

        Returns:
            float32 array (n, n, 2); the first row has the largest second coordinate, as in a plot.
        """
        sample = self.sample(200_000, [seed, 0]).numpy()
        levels = (np.arange(n) + 0.5) / n
        x, y = np.quantile(sample, levels, axis=0).T
        return np.stack(np.meshgrid(x, y[::-1]), axis=-1).astype(np.float32)

    def support(self):
        """The range of each axis that nearly all samples lie in, its 0.5 and 99.5 percentiles: two (n_z,)."""
        return np.quantile(self.sample(20_000, [0, 0]).numpy(), [0.005, 0.995], axis=0)

    def component_paths(self, n):
        """Walks of n codes along the component or region of each label: float32 array (K, n, 2)."""
        raise NotImplementedError

    def _pairs(self, codes):
        """Splits codes of an even size into independent pairs: (B, n_z) -> (B, n_z / 2, 2)."""
        return tf.reshape(tf.cast(codes, tf.float32), [-1, self.n_z // 2, 2])

    def _pair_labels(self, count, seed, labels):
        """Labels per pair (B, n_z / 2): the given label for every pair, or a fresh one for each."""
        if labels is None:
            shape = [count, self.n_z // 2]
            return tf.random.stateless_uniform(shape, seed, 0, self.n_classes, tf.int32)
        return tf.repeat(tf.cast(labels, tf.int32)[:, None], self.n_z // 2, axis=1)


def check_prior(prior, count=100):
    """Holds a prior against what this program expects of all of them.

    Args:
        prior: a `Prior`.
        count: of the codes that are drawn.

    Raises:
        ValueError: in one line, about the first thing that it breaks.
    """
    labels = np.arange(count, dtype=np.int32) % prior.n_classes
    for given in (None, labels):
        first, again, other = (np.asarray(prior.sample(count, [0, seed], given)) for seed in (1, 1, 2))
        if first.shape != (count, prior.n_z) or first.dtype != np.float32:
            raise ValueError(
                f"sample returns {first.dtype} {first.shape}, not float32 ({count}, {prior.n_z})"
            )
        if not np.isfinite(first).all():
            raise ValueError("sample returns numbers that are not finite")
        if not np.array_equal(first, again):
            raise ValueError("sample does not depend on its seed alone: draw with tf.random.stateless_*")
        if np.array_equal(first, other):
            raise ValueError("sample returns the same codes for every seed")
    if prior.uses_labels:
        found = np.asarray(prior.classify(first))
        if found.shape != (count,) or found.dtype.kind not in "iu":
            raise ValueError(f"classify returns {found.dtype} {found.shape}, not labels ({count},)")
