"""The standard normal prior, whole and truncated."""

import math

import numpy as np
import tensorflow as tf

from priors.prior import Prior


class Gaussian(Prior):
    """N(0, I) in any dimension; in two dimensions, cut into K label regions of equal mass.

    Label 0 owns the disc around the origin that holds 1 / K of the mass, labels 1 to K - 1 own equal
    angular sectors outside it. The first seed took the unit disc for label 0, which holds 39 % of the
    mass: its discriminator could then tell codes by their label alone. With n_z other than 2, or a single
    class, the code is independent of the label.

    Args:
        std: standard deviation of every axis; N(0, 25 I) is the paper's for the likelihood (section 3).
        n_z, n_classes: as of `Prior`.
    """

    def __init__(self, n_z, n_classes, std=1.0):
        super().__init__(n_z, n_classes)
        self.std = std

    @property
    def uses_labels(self):
        return self.n_z == 2 and self.n_classes > 1

    @property
    def _disc_radius(self):
        # The mass of N(0, I) within radius r is 1 - exp(-r^2 / 2).
        return np.float32(np.sqrt(-2 * np.log1p(-1 / self.n_classes)))

    def sample(self, count, seed, labels=None):
        if labels is None or not self.uses_labels:
            return tf.random.stateless_normal([count, self.n_z], seed, stddev=self.std)
        labels = tf.cast(labels, tf.float32)
        # Uniform in [0, 1): mass within the region, and position within the sector.
        mass, turn = tf.unstack(tf.random.stateless_uniform([2, count], seed))
        share = 1 / self.n_classes
        in_disc = labels == 0
        # Inverse CDF of the radius, restricted to the region's interval of mass.
        survival = tf.where(in_disc, 1 - mass * share, (1 - mass) * (1 - share))
        # `survival` is positive: mass < 1.
        radius = tf.sqrt(-2 * tf.math.log(survival))
        sector = tf.where(in_disc, turn * (self.n_classes - 1), labels - 1 + turn)
        angle = 2 * np.pi * sector / (self.n_classes - 1)
        return self.std * radius[:, None] * tf.stack([tf.cos(angle), tf.sin(angle)], axis=1)

    def log_prob(self, codes, labels=None):
        codes = tf.cast(codes, tf.float32)
        log_prob = -0.5 * tf.reduce_sum((codes / self.std) ** 2 + np.log(2 * np.pi * self.std**2), axis=1)
        if labels is None or not self.uses_labels:
            return log_prob
        inside = self.classify(codes) == tf.cast(labels, tf.int32)
        return tf.where(inside, log_prob + np.log(self.n_classes), -np.inf)

    def classify(self, codes):
        codes = tf.cast(codes, tf.float32)
        turn = tf.math.floormod(tf.atan2(codes[:, 1], codes[:, 0]) / (2 * np.pi), 1.0)
        sector = tf.minimum(tf.cast(turn * (self.n_classes - 1), tf.int32), self.n_classes - 2)
        return tf.where(tf.norm(codes, axis=1) < self.std * self._disc_radius, 0, sector + 1)

    def component_paths(self, n):
        levels = (np.arange(n) + 0.5) / n
        share = 1 / self.n_classes
        outside = np.sqrt(-2 * np.log((1 - levels) * (1 - share)))
        angles = 2 * np.pi * (np.arange(self.n_classes - 1) + 0.5) / (self.n_classes - 1)
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        sectors = outside[None, :, None] * directions[:, None, :]
        # Label 0: across its disc.
        across = self._disc_radius * (2 * levels - 1)
        disc = np.stack([across, np.zeros(n)], axis=1)
        return self.std * np.concatenate([disc[None], sectors]).astype(np.float32)


class TruncatedGaussian(Prior):
    """N(0, 1) in every direction, cut at two standard deviations (second seed): independent of the label."""

    LIMIT = 2.0

    @property
    def uses_labels(self):
        return False

    def sample(self, count, seed, labels=None):
        # By the inverse CDF: the mass below -LIMIT, and what lies between the limits.
        below = 0.5 * math.erfc(self.LIMIT / math.sqrt(2))
        uniform = tf.random.stateless_uniform([count, self.n_z], seed)
        codes = tf.math.ndtri(below + (1 - 2 * below) * uniform)
        return tf.clip_by_value(codes, -self.LIMIT, self.LIMIT)

    def log_prob(self, codes, labels=None):
        codes = tf.cast(codes, tf.float32)
        mass = math.erf(self.LIMIT / math.sqrt(2))
        log_prob = -0.5 * (codes**2 + np.log(2 * np.pi)) - np.log(mass)
        inside = tf.reduce_all(tf.abs(codes) <= self.LIMIT, axis=1)
        return tf.where(inside, tf.reduce_sum(log_prob, axis=1), -np.inf)
