"""Copies of a prior around heads: the codes of the dimensionality reduction."""

import numpy as np
import tensorflow as tf

from priors.prior import Prior


class HeadMixture(Prior):
    """The prior of a style around each of K heads: a code is a head and a style (paper, section 7).

    Args:
        style: the `Prior` of the style.
        heads: variable, float32 (K, n_z); a draw takes them where they are then.
    """

    def __init__(self, style, heads):
        super().__init__(style.n_z, heads.shape[0])
        self.style = style
        self.label_shares = style.label_shares
        self.heads = heads

    def sample(self, count, seed, labels=None):
        label_seed, style_seed = tf.unstack(tf.random.split(seed, 2))
        if labels is None:
            labels = self.sample_labels(count, label_seed)
        return self.style.sample(count, style_seed) + self._heads_of(labels)

    def log_prob(self, codes, labels=None):
        if labels is not None:
            return self.style.log_prob(codes - self._heads_of(labels))
        per_head = [self.style.log_prob(codes - head) for head in np.array(self.heads)]
        shares = tf.ones(self.n_classes) / self.n_classes if self.label_shares is None else self.label_shares
        weights = tf.math.log(tf.convert_to_tensor(shares))
        return tf.reduce_logsumexp(tf.stack(per_head, axis=1) + weights, axis=1)

    def classify(self, codes):
        """The label whose head is nearest, which is the most probable one where the style is normal."""
        distances = tf.norm(tf.cast(codes, tf.float32)[:, None] - tf.convert_to_tensor(self.heads), axis=2)
        return tf.argmin(distances, axis=1, output_type=tf.int32)

    def component_paths(self, n):
        """Walks through each head, along the percentiles of the style's first axis."""
        levels = (np.arange(n) + 0.5) / n
        path = np.zeros((n, self.n_z), np.float32)
        path[:, 0] = np.quantile(self.style.sample(20_000, [0, 0]).numpy()[:, 0], levels)
        return np.array(self.heads)[:, None] + path

    def _heads_of(self, labels):
        return tf.gather(tf.convert_to_tensor(self.heads), tf.cast(labels, tf.int32))
