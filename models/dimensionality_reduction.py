"""The adversarial autoencoder that lays classes or clusters out in few dimensions."""

import keras
import numpy as np
import tensorflow as tf

from models.clustering import ClusteringAAE
from priors.head_mixture import HeadMixture


@keras.saving.register_keras_serializable(package="aae")
class DimensionalityReductionAAE(ClusteringAAE):
    """The code is the head of the image's label and a style around it, in n_z dimensions (paper, section 7).

    The encoder's output is [style (n_z), label logits (K)], as of the semi-supervised model, whose
    discriminators and cross entropy it has. The decoder sees nothing but the code: style + softmax x heads
    (K, n_z). The heads are trained with the autoencoder, and in a phase of their own are kept at least
    `head_distance` apart. With `n_clusters` there are no labels: the heads are those of clusters.

    Args:
        n_classes: number of labels K, unless `n_clusters` says how many clusters there are.
        others: as of `AdversarialAutoencoder`.
    """

    decodes_labels = False
    # Codes lie around the head of their label.
    ties_labels_to_prior = True

    def __init__(self, image_shape, n_classes, **others):
        super().__init__(image_shape, n_classes, **others)
        of = self.settings
        seed = int(np.random.SeedSequence([of.seed, 100]).generate_state(1)[0])
        # As far apart as they shall be at least, most of them.
        apart = keras.initializers.RandomNormal(stddev=max(of.head_distance, 1.0), seed=seed)
        self.heads = self.add_weight(name="heads", shape=(self.n_classes, self.n_z), initializer=apart)
        self.prior = HeadMixture(self.prior, self.heads)

    @property
    def finds_clusters(self):
        return self.settings.n_clusters > 0

    @property
    def style_prior(self):
        return self.prior.style

    @property
    def phases(self):
        phases = super().phases
        return {**phases, "ae": [*phases["ae"], self.heads], "heads": [self.heads]}

    @property
    def logged(self):
        return [*super().logged, "heads_loss"]

    def joined(self, style, label):
        return style + tf.matmul(label, tf.convert_to_tensor(self.heads))

    def last_phase(self, data, seeds):
        logged = super().last_phase(data, seeds)
        with tf.GradientTape() as tape:
            loss = too_close(tf.convert_to_tensor(self.heads), self.settings.head_distance)
        self.update("heads", tape, loss)
        return {**logged, "heads_loss": loss}

    # Use after training.

    def code(self, images):
        return self.decoder_input(self.final_encoder(images), None)


def too_close(heads, distance):
    """What pairs of heads (K, n_z) lack of a distance, summed over the pairs (paper, section 7): a scalar."""
    differences = heads[:, None] - heads
    # The square root has no gradient at 0, where every head is from itself.
    distances = tf.sqrt(tf.reduce_sum(differences**2, axis=2) + 1e-12)
    lacks = tf.nn.relu(distance - distances)
    return tf.reduce_sum(lacks - tf.linalg.diag(tf.linalg.diag_part(lacks))) / 2
