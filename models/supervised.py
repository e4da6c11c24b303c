"""The supervised adversarial autoencoder."""

import keras
import tensorflow as tf

from models.adversarial_autoencoder import AdversarialAutoencoder
from models.augmentation import to_unit_interval
from models.losses import strayed


@keras.saving.register_keras_serializable(package="aae")
class SupervisedAAE(AdversarialAutoencoder):
    """Every training image's label tells D which part of the prior its code belongs to (first seed).

    D sees [z, one-hot label]: real pairs are a label and a code drawn from that label's component or
    region of the prior, fake pairs are an image's code and its label. Matching the two distributions
    sends the codes of each class to their own part of the prior. Neither the encoder nor the decoder
    ever sees the label.

    With `unlabelled`, D's label has one more entry, K, for images without a label; their real pairs are codes
    of the whole prior (paper, section 2.3).
    """

    ties_labels_to_prior = True

    @property
    def discriminator_shapes(self):
        return {"discriminator": (self.n_z + self.label_branches,)}

    @property
    def label_branches(self):
        return self.n_classes + self.settings.unlabelled

    def label_rows(self, labels):
        if self.settings.unlabelled:
            return tf.one_hot(labels, self.n_classes + 1)
        return super().label_rows(labels)

    @property
    def logged(self):
        consistency = ["consistency_loss"] if self.settings.consistency else []
        return [*super().logged, *consistency]

    def real_samples(self, labels, seed):
        count = tf.shape(labels)[0]
        label_seed, code_seed, blur_seed = tf.unstack(tf.random.split(seed, 3))
        drawn = self.prior.sample_labels(count, label_seed) if self.prior.uses_labels else labels
        # Otherwise code and label are independent, and the batch's own labels have the marginal of
        # the data, so D cannot tell real from fake by the label alone.
        codes = self.prior.sample(count, code_seed, drawn)
        if self.settings.unlabelled:
            # As many as in the batch, so that D cannot tell real from fake by their number.
            drawn = tf.where(labels == self.n_classes, labels, tf.cast(drawn, labels.dtype))
        return (self.with_label(codes, drawn, blur_seed),)

    def fake_samples(self, codes, labels, seed):
        return (self.with_label(codes, labels, seed),)

    def further_g_losses(self, images, seeds):
        """The consistency: G also learns to leave a copy of an image near the image's code.

        Codes of a class then draw together, which leaves gaps between those of two classes that lie side by
        side in the prior, and fewer new images land beyond an end. Half of the images serve for all. While
        most still have to find their part of the prior, it has little weight.
        """
        if not self.settings.consistency:
            return {}
        copies_seed, dropout_seed = next(seeds), next(seeds)
        images = to_unit_interval(images[: (tf.shape(images)[0] + 1) // 2])
        targets = tf.stop_gradient(self.encoder(images))

        def loss(copies):
            return strayed(self.encoder(copies, seed=dropout_seed), targets)

        left = 1 - tf.minimum(tf.cast(self.step, tf.float32) / self.settings.consistency_ramp, 1)
        weight = tf.exp(-5 * left**2)
        return {"consistency_loss": weight * loss(self.pushed(self.copies(images, copies_seed), loss))}
