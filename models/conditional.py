"""The conditional adversarial autoencoder."""

import keras
import numpy as np
import tensorflow as tf

from models.adversarial_autoencoder import AdversarialAutoencoder


@keras.saving.register_keras_serializable(package="aae")
class ConditionalAAE(AdversarialAutoencoder):
    """The label goes to decoder and D, so the code need not hold it (second seed; paper, sections 2.3 and 4).

    D sees [z, label], real and fake with the labels of the same images: the codes of every class, or of
    every set of attributes, are pushed onto the whole prior, and what is left for them is the style. The
    encoder never sees the label.
    """

    decodes_labels = True

    @property
    def discriminator_shapes(self):
        return {"discriminator": (self.n_z + self.n_classes,)}

    @property
    def label_branches(self):
        return 0 if self.attributes else self.n_classes

    def real_samples(self, labels, seed):
        code_seed, blur_seed = tf.unstack(tf.random.split(seed, 2))
        codes = self.prior.sample(tf.shape(labels)[0], code_seed)
        return (self.with_label(codes, labels, blur_seed),)

    def fake_samples(self, codes, labels, seed):
        return (self.with_label(codes, labels, seed),)

    def decoder_input(self, codes, labels):
        return self.with_label(codes, labels)

    def reconstruct(self, images, labels=None) -> np.ndarray:
        """Decoded codes of images: float32 (N, H, W, C) in [0, 1]; labels of the images as for `decode`."""
        return self.decode(self.encode(images), labels)
