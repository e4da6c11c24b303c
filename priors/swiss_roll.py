"""The swiss roll prior."""

import numpy as np
import tensorflow as tf

from priors.prior import Prior


class SwissRoll(Prior):
    """A spiral of two turns whose K equal stretches belong to the labels (paper, figure 4; first seed).

    With t = (U(0, 1) + label) / K the code lies at radius 3 sqrt(t) and angle 4 pi sqrt(t). A code of
    size n_z consists of n_z / 2 such pairs, independent given the label; without one each pair draws
    its own label. The roll is a curve: it has no density on the plane.
    """

    POINTS_PER_LABEL = 200  # of the polyline that `classify` measures distances to

    def sample(self, count, seed, labels=None):
        id_seed, code_seed = tf.unstack(tf.random.split(seed, 2))
        ids = tf.cast(self._pair_labels(count, id_seed, labels), tf.float32)
        uniform = tf.random.stateless_uniform([count, self.n_z // 2], code_seed)
        return tf.reshape(self._curve((uniform + ids) / self.n_classes), [count, self.n_z])

    def classify(self, codes):
        """The label whose stretch of the roll is nearest (by summed squared distance over the pairs)."""
        pairs = self._pairs(codes)
        distances = []
        for stretch in self.component_paths(self.POINTS_PER_LABEL):
            squared = tf.reduce_sum((pairs[:, :, None, :] - stretch) ** 2, axis=3)
            distances.append(tf.reduce_sum(tf.reduce_min(squared, axis=2), axis=1))
        return tf.argmin(tf.stack(distances, axis=1), axis=1, output_type=tf.int32)

    def component_paths(self, n):
        t = (np.arange(self.n_classes * n) + 0.5) / (self.n_classes * n)
        return self._curve(t.astype(np.float32).reshape(self.n_classes, n)).numpy()

    @staticmethod
    def _curve(t):
        """Points of the roll at positions t in [0, 1): (...) -> (..., 2)."""
        root = tf.sqrt(t)
        angle = 4 * np.pi * root
        return 3 * root[..., None] * tf.stack([tf.cos(angle), tf.sin(angle)], axis=-1)
