"""The basic adversarial autoencoder."""

import keras
import tensorflow as tf

from models.adversarial_autoencoder import AdversarialAutoencoder


@keras.saving.register_keras_serializable(package="aae")
class UnsupervisedAAE(AdversarialAutoencoder):
    """No labels anywhere: D holds the codes of all images against the prior (paper, section 2)."""

    @property
    def discriminator_shapes(self):
        return {"discriminator": (self.n_z,)}

    def real_samples(self, labels, seed):
        code_seed, blur_seed = tf.unstack(tf.random.split(seed, 2))
        return (self.blurred(self.prior.sample(tf.shape(labels)[0], code_seed), blur_seed),)

    def fake_samples(self, codes, labels, seed):
        return (self.blurred(codes, seed),)
