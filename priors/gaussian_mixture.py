"""The mixture of elongated normals arranged like petals."""

import numpy as np
import tensorflow as tf

from priors.prior import Prior


class GaussianMixture(Prior):
    """K two-dimensional normals, one per label, on a circle (paper, figure 4; formula of the first seed).

    Component k is N(0, diag(0.5^2, 0.1^2)) rotated by the angle r = 2 pi k / K and shifted by
    1.4 (cos r, sin r), so its long axis points away from the origin. A code of size n_z consists of
    n_z / 2 independent pairs; given a label, every pair comes from that label's component, without
    one each pair draws its own.
    """

    STDS = np.array([0.5, 0.1], np.float32)  # along and across the petal
    SHIFT = 1.4

    @property
    def _rotations(self):
        """float32 (K, 2, 2): row 0 is the direction of the long axis, row 1 that of the short one."""
        angle = 2 * np.pi * np.arange(self.n_classes) / self.n_classes
        long_axis = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        short_axis = np.stack([-np.sin(angle), np.cos(angle)], axis=1)
        return np.stack([long_axis, short_axis], axis=1).astype(np.float32)

    def sample(self, count, seed, labels=None):
        id_seed, code_seed = tf.unstack(tf.random.split(seed, 2))
        ids = self._pair_labels(count, id_seed, labels)
        local = tf.random.stateless_normal([count, self.n_z // 2, 2], code_seed) * self.STDS
        local += [self.SHIFT, 0.0]
        pairs = tf.einsum("bpi,bpij->bpj", local, tf.gather(self._rotations, ids))
        return tf.reshape(pairs, [count, self.n_z])

    def log_prob(self, codes, labels=None):
        per_component = self._pair_log_probs(codes)
        if labels is None:
            mixture = tf.reduce_logsumexp(per_component, axis=2) - np.log(self.n_classes)
            return tf.reduce_sum(mixture, axis=1)
        # The shared label makes the pairs a product within each component.
        joint = tf.reduce_sum(per_component, axis=1)
        return tf.gather(joint, tf.cast(labels, tf.int32), batch_dims=1)

    def classify(self, codes):
        joint = tf.reduce_sum(self._pair_log_probs(codes), axis=1)
        return tf.argmax(joint, axis=1, output_type=tf.int32)

    def component_paths(self, n):
        # Evenly spaced percentiles of a normal come from its sorted quantiles.
        levels = (np.arange(n) + 0.5) / n
        along = self.SHIFT + self.STDS[0] * tf.math.ndtri(levels.astype(np.float32)).numpy()
        return along[None, :, None] * self._rotations[:, None, 0, :]

    def _pair_log_probs(self, codes):
        """Log N(pair; component k), float32 (B, n_z / 2, K)."""
        local = tf.einsum("bpj,kij->bpki", self._pairs(codes), self._rotations) - [self.SHIFT, 0.0]
        normaliser = np.log(2 * np.pi * self.STDS.prod())
        return -0.5 * tf.reduce_sum((local / self.STDS) ** 2, axis=3) - normaliser
