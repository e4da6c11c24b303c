"""The semi-supervised adversarial autoencoder."""

import keras
import numpy as np
import tensorflow as tf

from models.adversarial_autoencoder import AdversarialAutoencoder
from models.augmentation import noised, to_unit_interval
from models.losses import label_loss, lost_information, soft_label_loss
from models.prediction import checked_images


@keras.saving.register_keras_serializable(package="aae")
class SemiSupervisedAAE(AdversarialAutoencoder):
    """The code is a style and a label; few labelled images teach the label (paper, section 5).

    The encoder's output is [style (n_z), label logits (K)]. One label head serves all: its softmax goes to
    the decoder beside the style, and to the discriminators. After G, the cross entropy on a labelled batch
    trains the encoder. (In the first seed, the cross entropy trained a second head that nothing else used.)

    The paper holds style and label each against its own prior. That leaves the style free to carry the
    digit as well, and then the decoder ignores the label. Two things prevent it: one discriminator of the
    pair makes style and label independent, and the cycle tells the decoder that the encoder must read a
    label in what is decoded from it.
    """

    decodes_labels = True

    def __init__(self, image_shape, n_classes, **others):
        super().__init__(image_shape, n_classes, **others)
        if self.finds_clusters and self.settings.consistency:
            # Ten digits in 16 equal parts would leave rests, which share a cluster. So D sees clusters as
            # often as images chose them lately, and the consistency alone sees to it that all are chosen.
            self.cluster_shares = self.add_weight(
                name="cluster_shares",
                shape=(self.n_classes,),
                initializer=keras.initializers.Constant(1 / self.n_classes),
                trainable=False,
                aggregation="mean",
            )
            self.prior.label_shares = self.cluster_shares

    @property
    def code_size(self):
        return self.n_z + self.n_classes

    @property
    def discriminator_shapes(self):
        if self.settings.joint_discriminator:
            return {"discriminator": (self.n_z + self.n_classes,)}
        return {"discriminator_z": (self.n_z,), "discriminator_y": (self.n_classes,)}

    @property
    def phases(self):
        labels = {} if self.finds_clusters else {"ce": self.encoder.trainable_variables}
        # Labels or copies teach the encoder to read. Without them it learns from the decoder, as in arXiv
        # 1606.03657: each cluster looks like something, and is read as what it is, so that none stays empty.
        untaught = self.finds_clusters and not self.settings.consistency
        readers = self.encoder.trainable_variables if untaught else []
        cycle = {"cycle": self.decoder.trainable_variables + readers} if self.settings.cycle else {}
        consistency = {"consistency": self.encoder.trainable_variables} if self.settings.consistency else {}
        return {**super().phases, **labels, **cycle, **consistency}

    @property
    def logged(self):
        labels = [] if self.finds_clusters else ["label_loss", "labelled_accuracy"]
        cycle = ["cycle_loss", "cycle_accuracy"] if self.settings.cycle else []
        consistency = ["consistency_loss"] if self.settings.consistency else []
        return [*super().logged, *labels, *cycle, *consistency]

    @property
    def style_prior(self):
        """The distribution that the style is pushed onto."""
        return self.prior

    def joined(self, style, label):
        """What the decoder sees of a style (B, n_z) and a label, one-hot or probabilities (B, K)."""
        return tf.concat([style, label], axis=1)

    def decoder_input(self, codes, labels):
        style, logits = self.split(codes)
        if self.settings.consistency:
            # Else a label comes to tell how a digit is drawn, such as how far a 1 leans, to save style.
            logits = tf.stop_gradient(logits)
        return self.joined(style, tf.nn.softmax(logits))

    def split(self, codes):
        """The encoder's output (B, n_z + K) as style (B, n_z) and label logits (B, K)."""
        return tf.split(codes, [self.n_z, self.n_classes], axis=1)

    def real_samples(self, labels, seed):
        count = tf.shape(labels)[0]
        code_seed, label_seed, blur_seed = tf.unstack(tf.random.split(seed, 3))
        style = self.style_prior.sample(count, code_seed)
        one_hot = self.label_rows(self.prior.sample_labels(count, label_seed))
        return self._judged(self.blurred(style, blur_seed), one_hot)

    def fake_samples(self, codes, labels, seed):
        style, logits = self.split(codes)
        return self._judged(self.blurred(style, seed), tf.nn.softmax(logits))

    def _judged(self, style, label):
        """What each discriminator sees of a style (B, n_z) and a label (B, K)."""
        return (tf.concat([style, label], axis=1),) if self.settings.joint_discriminator else (style, label)

    def last_phase(self, data, seeds):
        """Cross entropy, cycle, consistency; data ends with labelled images (L, H, W, C) and labels (L,).

        A model that finds clusters has no cross entropy, and needs none of both.
        """
        logged = {}
        if not self.finds_clusters:
            logged |= self._cross_entropy_phase(*data[2:], next(seeds), next(seeds))
        if self.settings.cycle:
            logged |= self._cycle_phase(data[0], next(seeds))
        if self.settings.consistency:
            logged |= self._consistency_phase(data[0], next(seeds), next(seeds))
        return logged

    def _cross_entropy_phase(self, images, labels, noise_seed, dropout_seed):
        """The encoder learns the labels of the labelled images."""
        _, inputs = self.clean_and_noised(images, noise_seed)
        with tf.GradientTape() as tape:
            _, logits = self.split(self.encoder(inputs, seed=dropout_seed))
            loss = label_loss(labels, logits)
        self.update("ce", tape, loss)
        return {"label_loss": loss, "labelled_accuracy": is_right(labels, logits)}

    def _cycle_phase(self, images, seed):
        """The decoder learns to make of a style and a label what the encoder reads as that label.

        Where nothing else tells the encoder what a cluster is, it learns to read it, too.

        Half of the styles are those of images, half are drawn from the prior; the labels are drawn, so
        that a style that carries the digit is of no use.
        """
        count = tf.shape(images)[0]
        label_seed, style_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
        encoded, _ = self.split(self.encoder(to_unit_interval(images[: count // 2])))
        drawn = self.style_prior.sample(count - count // 2, style_seed)
        styles = tf.concat([encoded, drawn], axis=0)
        labels = self.prior.sample_labels(count, label_seed)
        with tf.GradientTape() as tape:
            decoded = self.decoder(self.joined(styles, self.label_rows(labels)))
            inputs = noised(decoded, noise_seed, *self.disturbance)
            _, logits = self.split(self.encoder(inputs))
            loss = label_loss(labels, logits)
        self.update("cycle", tape, loss)
        return {"cycle_loss": loss, "cycle_accuracy": is_right(labels, logits)}

    def _consistency_phase(self, images, noise_seed, dropout_seed):
        """The encoder learns to read in a copy of an image what it reads in the image (arXiv 1606.04586).

        It also learns to be sure of an image's label, and to read all labels alike often (arXiv 1702.08720):
        that makes clusters of images of which few have a label, or none. It does so weakly, so that images
        can still change their label.
        """
        images = to_unit_interval(images)
        with tf.GradientTape() as tape:
            # As in training: a batch norm that has seen little would read the image otherwise.
            _, logits = self.split(self.encoder(images, seed=tf.random.fold_in(dropout_seed, 4)))
            target, loss = tf.stop_gradient(tf.nn.softmax(logits)), lost_information(logits)

            def misread(copies):
                return soft_label_loss(target, self.split(self.encoder(copies, seed=dropout_seed))[1])

            loss += misread(self.pushed(self.copies(images, noise_seed), misread))
        self.update("consistency", tape, loss)
        if self.finds_clusters:
            lately = tf.convert_to_tensor(self.cluster_shares)
            self.cluster_shares.assign(0.9 * lately + 0.1 * tf.reduce_mean(target, axis=0))
        return {"consistency_loss": loss}

    # Use after training.

    def code(self, images):
        style, _ = self.split(self.final_encoder(images))
        return style

    def classify(self, images) -> np.ndarray:
        """Probabilities of the labels, or clusters, of images, float32 (N, K); images as for `encode`."""
        return self._in_batches("probabilities", checked_images(images, self.image_shape))

    def probabilities(self, images):
        """`classify` of float images as a tensor."""
        _, logits = self.split(self.final_encoder(images))
        return tf.nn.softmax(logits)

    def decode_heads(self) -> np.ndarray:
        """What each label, or cluster, looks like in the style 0: float32 (K, H, W, C) in [0, 1]."""
        heads = self.joined(tf.zeros([self.n_classes, self.n_z]), tf.eye(self.n_classes))
        return self._in_batches("final_decoder", heads.numpy())


def is_right(labels, logits):
    """Whether the largest of each row of logits (B, K) is that of the label (B,): boolean (B,)."""
    return tf.argmax(logits, axis=1) == tf.cast(labels, tf.int64)
