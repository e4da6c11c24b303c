"""The supervised adversarial autoencoder."""

import keras
import tensorflow as tf

from models.adversarial_autoencoder import AdversarialAutoencoder


@keras.saving.register_keras_serializable(package="aae")
class SupervisedAAE(AdversarialAutoencoder):
    """Every training image's label tells D which part of the prior its code belongs to (first seed).

    D sees [z, one-hot label]: real pairs are a label and a code drawn from that label's component or
    region of the prior, fake pairs are an image's code and its label. Matching the two distributions
    sends the codes of each class to their own part of the prior. Neither the encoder nor the decoder
    ever sees the label.
    """

    ties_labels_to_prior = True

    @property
    def discriminator_shapes(self):
        return {"discriminator": (self.n_z + self.n_classes,)}

    def real_samples(self, labels, seed):
        count = tf.shape(labels)[0]
        label_seed, code_seed, blur_seed = tf.unstack(tf.random.split(seed, 3))
        if self.prior.uses_labels:
            labels = self.prior.sample_labels(count, label_seed)
        # Otherwise code and label are independent, and the batch's own labels have the marginal of
        # the data, so D cannot tell real from fake by the label alone.
        return (self.with_label(self.prior.sample(count, code_seed, labels), labels, blur_seed),)

    def fake_samples(self, codes, labels, seed):
        return (self.with_label(codes, labels, seed),)
