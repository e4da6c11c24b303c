"""The semi-supervised adversarial autoencoder."""

import keras
import numpy as np
import tensorflow as tf

from models.adversarial_autoencoder import AdversarialAutoencoder, to_unit_interval
from models.losses import label_loss


@keras.saving.register_keras_serializable(package="aae")
class SemiSupervisedAAE(AdversarialAutoencoder):
    """The code is a style and a label; few labelled images teach the label (paper, sections 2.3 and 5).

    The encoder's output is [style (n_z), label logits (K)]. One label head serves all: its softmax goes
    to the decoder beside the style, and to D_y, which holds it against one-hot labels drawn uniformly;
    D_z holds the style against the prior. After G, the cross entropy on a labelled batch trains the
    encoder. (In the first seed, the cross entropy trained a second head that nothing else used.)
    """

    decodes_labels = True

    @property
    def code_size(self):
        return self.n_z + self.n_classes

    @property
    def discriminator_shapes(self):
        return {"discriminator_z": (self.n_z,), "discriminator_y": (self.n_classes,)}

    @property
    def phases(self):
        return {**super().phases, "ce": self.encoder.trainable_variables}

    @property
    def logged(self):
        return [*super().logged, "label_loss", "labelled_accuracy"]

    def decoder_input(self, codes):
        style, logits = self.split(codes)
        return tf.concat([style, tf.nn.softmax(logits)], axis=1)

    def split(self, codes):
        """The encoder's output (B, n_z + K) as style (B, n_z) and label logits (B, K)."""
        return tf.split(codes, [self.n_z, self.n_classes], axis=1)

    def real_samples(self, labels, seed):
        count = tf.shape(labels)[0]
        code_seed, label_seed, blur_seed = tf.unstack(tf.random.split(seed, 3))
        style = self.prior.sample(count, code_seed)
        one_hot = tf.one_hot(self.prior.sample_labels(count, label_seed), self.n_classes)
        return self.blurred(style, blur_seed), one_hot

    def fake_samples(self, codes, labels, seed):
        style, logits = self.split(codes)
        return self.blurred(style, seed), tf.nn.softmax(logits)

    def last_phase(self, data, seeds):
        """Cross entropy: data holds labelled images (L, H, W, C) and their labels (L,) at the end."""
        images, labels = to_unit_interval(data[2]), data[3]
        noised = self.noised(images, next(seeds))
        with tf.GradientTape() as tape:
            _, logits = self.split(self.encoder(noised, seed=next(seeds)))
            loss = label_loss(labels, logits)
        self.update("ce", tape, loss)
        right = tf.argmax(logits, axis=1) == tf.cast(labels, tf.int64)
        return {"label_loss": loss, "labelled_accuracy": right}

    # Use after training.

    def encode(self, images):
        """Styles of images: (N, H, W, C), uint8 or float32 in [0, 1], to float32 (N, n_z).

        Raises:
            ValueError: if the images have another shape or type.
        """
        return self._encoder_output(images)[:, : self.n_z]

    def classify(self, images):
        """Probabilities of the labels of images: (N, H, W, C), as for `encode`, to float32 (N, K).

        Raises:
            ValueError: if the images have another shape or type.
        """
        return tf.nn.softmax(self._encoder_output(images)[:, self.n_z :]).numpy()

    def decode(self, codes, labels):
        """Images of styles (N, n_z) with labels: float32 (N, H, W, C) in [0, 1].

        Args:
            labels: integers (N,), or one-hot rows or probabilities (N, K).

        Raises:
            ValueError: if styles or labels have another shape, or a label is out of range.
        """
        codes, labels = self._checked_codes(codes), np.asarray(labels)
        if labels.shape == (len(codes),) and np.issubdtype(labels.dtype, np.integer):
            for extreme in (labels.min(initial=0), labels.max(initial=0)):
                self._check_label(extreme)
            labels = np.eye(self.n_classes)[labels]
        if labels.shape != (len(codes), self.n_classes):
            raise ValueError(
                f"Expected {len(codes)} integer labels or labels of shape ({len(codes)}, {self.n_classes}), "
                f"got {labels.dtype} labels of shape {labels.shape}."
            )
        return self._in_batches(self.decoder, np.concatenate([codes, labels], axis=1, dtype=np.float32))

    def generate(self, n, label=None, seed=None):
        """Decodes n samples of the style prior, each with a label: float32 (n, H, W, C) in [0, 1].

        Args:
            label: of all images; by default drawn with equal probability.

        Raises:
            ValueError: if the label is out of range.
        """
        self._check_label(label)
        return self.decode(*self.sample_prior(n, label, seed))
