"""The semi-supervised adversarial autoencoder."""

import keras
import tensorflow as tf

from models.adversarial_autoencoder import AdversarialAutoencoder
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

    def decoder_input(self, codes, labels):
        style, logits = self.split(codes)
        return tf.concat([style, tf.nn.softmax(logits)], axis=1)

    def split(self, codes):
        """The encoder's output (B, n_z + K) as style (B, n_z) and label logits (B, K)."""
        return tf.split(codes, [self.n_z, self.n_classes], axis=1)

    def real_samples(self, labels, seed):
        count = tf.shape(labels)[0]
        code_seed, label_seed, blur_seed = tf.unstack(tf.random.split(seed, 3))
        style = self.prior.sample(count, code_seed)
        one_hot = self.label_rows(self.prior.sample_labels(count, label_seed))
        return self.blurred(style, blur_seed), one_hot

    def fake_samples(self, codes, labels, seed):
        style, logits = self.split(codes)
        return self.blurred(style, seed), tf.nn.softmax(logits)

    def last_phase(self, data, seeds):
        """Cross entropy: data holds labelled images (L, H, W, C) and their labels (L,) at the end."""
        labels = data[3]
        _, noised = self.clean_and_noised(data[2], next(seeds))
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
