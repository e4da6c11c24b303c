"""The base class of all adversarial autoencoders: the networks and the train step."""

import dataclasses

import keras
import tensorflow as tf

from models import RECONSTRUCTIONS
from models.augmentation import Augmentation, to_unit_interval
from models.averages import take_up_weights
from models.losses import discriminator_loss, generator_loss, slope_penalty
from models.parts import made_networks
from models.phased_model import PhasedModel
from models.prediction import Prediction
from models.settings import ModelSettings, updated_config
from priors import PRIORS
from utils import processor, registry
from utils.settings import of_saved

# More than any model's train step draws with.
SEEDS_PER_STEP = 16


class AdversarialAutoencoder(Prediction, Augmentation, PhasedModel):
    """An autoencoder whose codes a discriminator pushes onto a prior (arXiv 1511.05644, section 2).

    A subclass says what the discriminators see: `discriminator_shapes`, `real_samples` and
    `fake_samples`; it may give the code a label part and add a phase. The rest of the train step lives
    here, the use after training in `Prediction`.

    Args:
        image_shape: (H, W, C).
        n_classes: number of labels K.
        attributes: whether labels are rows of K attributes in {0, 1} instead of one class each.
        name: of the Keras model.
        **settings: those of `ModelSettings`, such as `prior` and `n_z`.
    """

    # Whether each class gets its own part of the prior, as where D sees the label beside the code.
    ties_labels_to_prior = False
    # Whether `decode` takes labels beside the codes; whether these are clusters, which no data has named.
    decodes_labels = finds_clusters = False

    def __init__(self, image_shape, n_classes, attributes=False, name=None, **settings):
        super().__init__(name=name)
        self.image_shape = tuple(image_shape)
        self.n_classes = n_classes
        self.attributes = attributes
        given = ModelSettings(**settings)
        given.validate()
        self.settings = dataclasses.replace(given, precision=processor.precision(given.precision))
        self.n_z = self.settings.n_z
        width = {"std": self.settings.prior_std} if self.settings.prior == "gaussian" else {}
        self.prior = registry.load(PRIORS, self.settings.prior)(self.n_z, n_classes, **width)
        self.reconstruction_loss = registry.load(RECONSTRUCTIONS, self.settings.reconstruction)
        for name, network in made_networks(self).items():
            setattr(self, name, network)
        # Counts train steps. All draws of a step are a function of it, so it is saved as a weight.
        self.step = self.add_weight(name="step", dtype="int64", initializer="zeros", trainable=False)
        # The losses of D and G, per discriminator, that `may_train` looks at.
        self.last_losses = self.add_weight((2,), name="last_losses", trainable=False, aggregation="mean")
        self.forget_losses()
        # Counts the steps whose loss is not finite. No weight: nothing is saved after the first one.
        self.diverged_steps = tf.Variable(
            0, trainable=False, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self.train_trackers = [keras.metrics.Mean(name=name) for name in self.logged]
        self.mse_tracker = keras.metrics.Mean(name="reconstruction_mse")
        self._generated = 0
        self._held = None
        self.built = True

    @property
    def averaged(self):
        """Pairs of a network and of the one whose weights it averages over the train steps."""
        if self.settings.ema_decay == 0:
            return []
        return [(self.averaged_encoder, self.encoder), (self.averaged_decoder, self.decoder)]

    @property
    def final_encoder(self):
        """The encoder that serves outside training: the averaged one, if there is one."""
        return self.averaged_encoder if self.averaged else self.encoder

    @property
    def final_decoder(self):
        """The decoder that serves outside training."""
        return self.averaged_decoder if self.averaged else self.decoder

    @property
    def made_with(self):
        """All that two models must have in common for one to go on where the other stopped."""
        return self.image_shape, self.n_classes, self.attributes, self.settings.effective

    # What a subclass defines.

    @property
    def discriminator_shapes(self):
        """The discriminators' names, and the shape of one sample that each judges.

        A name is `discriminator`, or that with an ending such as `_z`; its figures are `d_loss`, `d_z_loss`.
        """
        raise NotImplementedError

    @property
    def label_branches(self):
        """Outputs of D where its label picks one: the length of the one-hot label that ends what it sees."""
        return 0

    @property
    def discriminators(self):
        """The discriminators by the short names of their figures: `d`, or `d_z` and `d_y`."""
        return {name.replace("discriminator", "d"): getattr(self, name) for name in self.discriminator_shapes}

    def real_samples(self, labels, seed):
        """Samples of the priors, one tensor per discriminator, for a batch with these labels (B,)."""
        raise NotImplementedError

    def fake_samples(self, codes, labels, seed):
        """What each discriminator sees of the codes (B, code_size) of images with these labels (B,)."""
        raise NotImplementedError

    @property
    def labels_have_places(self):
        """Whether the model gives each label a part of the prior of its own."""
        return self.ties_labels_to_prior and self.prior.uses_labels

    @property
    def code_size(self):
        """Units of the encoder's output."""
        return self.n_z

    @property
    def decoder_input_size(self):
        """Units of what the decoder sees."""
        return self.n_z + self.n_classes * self.decodes_labels

    def decoder_input(self, codes, labels):
        """What the decoder sees in training: of codes (B, code_size) of images with these labels."""
        return codes

    def label_rows(self, labels):
        """Labels as D and the decoder see them: classes (B,) one-hot, attributes (B, K) as they are."""
        return tf.cast(labels, tf.float32) if self.attributes else tf.one_hot(labels, self.n_classes)

    @property
    def phases(self):
        """What each phase trains, in the order of its optimizer's state."""
        return {
            "ae": self.encoder.trainable_variables + self.decoder.trainable_variables,
            "d": [v for network in self.discriminators.values() for v in network.trainable_variables],
            "g": self.encoder.trainable_variables,
        }

    def further_g_losses(self, images, seeds):
        """Terms that G's loss gains, by the names that they are logged by; images as in `train_step`."""
        return {}

    def last_phase(self, data, seeds):
        """A further phase of the train step, after G; returns what it logs."""
        return {}

    @property
    def logged(self):
        """Names of the figures that the train step logs."""
        figures = ("loss", "accuracy_real", "accuracy_fake")
        of_d = [f"{d}_{figure}" for d in self.discriminators for figure in figures]
        skipped = ["d_skipped", "g_skipped"] if self.settings.balance else []
        return ["reconstruction_loss", *of_d, "g_loss", *skipped]

    def with_label(self, codes, labels, seed=None):
        """Codes (B, n_z), blurred if there is a seed, beside their labels' rows: (B, n_z + K)."""
        return tf.concat([self.blurred(codes, seed), self.label_rows(labels)], axis=1)

    def blurred(self, codes, seed):
        """Codes as D sees them, with noise if there is a seed (instance noise, arXiv 1610.04490).

        A prior without thickness, such as the swiss roll, and codes never overlap: without noise D wins, and
        G's gradient says nothing. With equal noise on both they match exactly if they match without.
        """
        if self.settings.d_noise == 0 or seed is None:
            return codes
        return codes + tf.random.stateless_normal(tf.shape(codes), seed, stddev=self.settings.d_noise)

    # Training.

    def train_step(self, data):
        """One update of the autoencoder (AE), of the discriminators (D) and of the generator (G).

        Args:
            data: images (B, H, W, C), uint8 or float32 in [0, 1], integer labels (B,), and what
                `last_phase` needs.
        """
        seeds = iter(self.step_seeds(self.settings.seed, SEEDS_PER_STEP))
        images, noised = self.clean_and_noised(data[0], seed := next(seeds))
        labels = data[1]

        # AE: the reconstruction of the clean image trains encoder and decoder.
        with tf.GradientTape() as tape:
            codes = self.encoder(noised, seed=next(seeds))
            reconstructions = self.decoder(self.decoder_input(codes, labels), seed=next(seeds))
            ae_loss = self.reconstruction_loss(images, reconstructions)
        self.update("ae", tape, ae_loss)

        # D and G see the same encoder, so one pass through it serves both.
        encoder_tape = tf.GradientTape()
        inputs = self.partly_distorted(data[0], noised, seed)
        with encoder_tape:
            fakes = self.fake_samples(self.encoder(inputs, seed=next(seeds)), labels, next(seeds))
        reals = self.real_samples(labels, next(seeds))

        # D: learns to tell the priors' samples from the codes; the encoder must not learn from it.
        logged, d_loss = {}, 0.0
        with tf.GradientTape() as tape:
            for (d, network), real, fake in zip(self.discriminators.items(), reals, fakes, strict=True):
                judged = tf.concat([real, tf.stop_gradient(fake)], axis=0)
                real_logits, fake_logits = tf.split(network(judged, seed=next(seeds)), 2)
                loss = discriminator_loss(real_logits, fake_logits)
                d_loss += loss
                logged |= {
                    f"{d}_loss": loss,
                    f"{d}_accuracy_real": real_logits > 0,
                    f"{d}_accuracy_fake": fake_logits < 0,
                }
        # The discriminators share no weights, so one update of all is one update of each.
        d_may_train, g_may_train = self.may_train()
        self.update("d", tape, d_loss, d_may_train, self.d_penalty(reals))

        # G: the encoder learns to have its codes taken for samples of the priors.
        g_loss = 0.0
        with encoder_tape:
            for network, fake in zip(self.discriminators.values(), fakes, strict=True):
                g_loss += generator_loss(network(fake, seed=next(seeds)))
            further = self.further_g_losses(data[0], seeds)
            whole = tf.add_n([g_loss, *further.values()])
        self.update("g", encoder_tape, whole, g_may_train)
        if self.settings.balance:
            # Of D's two terms the mean, so that ln 2 is the equilibrium of both players.
            self.last_losses.assign(tf.stack([d_loss / 2, g_loss]) / len(self.discriminators))
            logged |= {"d_skipped": ~d_may_train, "g_skipped": ~g_may_train}

        logged |= {"reconstruction_loss": ae_loss, "g_loss": g_loss} | further | self.last_phase(data, seeds)
        losses = tf.add_n([value for name, value in logged.items() if name.endswith("loss")])
        self.diverged_steps.assign_add(tf.cast(~tf.math.is_finite(losses), tf.int64))
        self.step.assign_add(1)
        for tracker in self.train_trackers:
            tracker.update_state(logged[tracker.name])

    def d_penalty(self, reals):
        """A tape and what the slopes of the discriminators cost them, or None."""
        if self.settings.d_penalty == 0:
            return None
        with tf.GradientTape() as tape:
            judged = zip(self.discriminators.values(), reals, strict=True)
            slopes = [slope_penalty(network, real, self.n_z) for network, real in judged]
            return tape, self.settings.d_penalty * tf.add_n(slopes)

    def may_train(self):
        """Whether D, and whether G, is updated in this step: two boolean scalars (second seed).

        A player whose own loss is below 0.45 while the other's is above 0.95 is too far ahead, by the
        losses of the step before, and waits. Without `balance`, (None, None): nobody ever waits.
        """
        if not self.settings.balance:
            return None, None
        d_loss, g_loss = tf.unstack(tf.convert_to_tensor(self.last_losses))
        return (g_loss < 0.95) | (d_loss > 0.45), (d_loss < 0.95) | (g_loss > 0.45)

    def forget_losses(self):
        """Lets both players begin level, as at the start of every epoch (second seed)."""
        self.last_losses.assign([0.69, 0.69])

    def after_step(self):
        if self.averaged:
            step = tf.convert_to_tensor(self.step)
            take_up_weights(self.averaged, step, self.settings.ema_decay, self.distribute_strategy)

    def test_step(self, data):
        """Adds a batch to the reconstruction error: no noise, no dropout."""
        images, labels = to_unit_interval(data[0]), data[1]
        errors = tf.reduce_mean(tf.math.squared_difference(self(images, labels), images), axis=[1, 2, 3])
        self.mse_tracker.update_state(errors)

    def call(self, images, labels=None):
        """Reconstructs a batch of images: float32 (B, H, W, C) in [0, 1] to the same."""
        return self.final_decoder(self.decoder_input(self.final_encoder(images), labels))

    def get_config(self):
        return {
            "name": self.name,
            "image_shape": self.image_shape,
            "n_classes": self.n_classes,
            "attributes": self.attributes,
            **dataclasses.asdict(self.settings),
        }

    @classmethod
    def from_config(cls, config):
        """A model of what `get_config` returned, in this version or an earlier one."""
        return cls(**of_saved(ModelSettings, updated_config(config)))
