"""The base class of all adversarial autoencoders: networks, the train step, and use after training."""

import keras
import numpy as np
import tensorflow as tf

from models.augmentation import shifted, to_unit_interval
from models.fused_optimizers import FusedAdam
from models.losses import RECONSTRUCTION_LOSSES, discriminator_loss, generator_loss
from models.networks import NETWORKS, DenseNetwork
from priors import PRIORS
from utils import registry

# More than any model's train step draws with.
SEEDS_PER_STEP = 16
# Images per call of a network outside training: bounds the memory, whatever the number asked for.
INFERENCE_BATCH = 1000


class AdversarialAutoencoder(keras.Model):
    """An autoencoder whose codes a discriminator pushes onto a prior (arXiv 1511.05644, section 2).

    A subclass says what the discriminators see: `discriminator_shapes`, `real_samples` and
    `fake_samples`; it may give the code a label part and add a phase. Everything else lives here.

    Args:
        image_shape: (H, W, C).
        n_classes: number of labels K.
        prior: a name from `priors.PRIORS`.
        n_z: size of the code.
        attributes: whether labels are rows of K attributes in {0, 1} instead of one class each.
        network: "dense" or "conv": the encoder's and the decoder's kind, from `models.networks.NETWORKS`.
        n_hidden: units per hidden layer of the encoder and the decoder, if they are dense.
        conv_widths: channels of their layers, if they are convolutional.
        d_hidden: units per hidden layer of the discriminators; 0 for as many as `n_hidden`.
        activation: of all hidden layers, "relu" or "leaky_relu".
        output: of the decoder, "sigmoid" or "tanh".
        batch_norm: whether encoder and decoder have batch norm.
        keep_prob: share of hidden units that dropout keeps in training.
        noise_std: standard deviation of the noise added to every input pixel in training.
        shift: pixels, at most, that each training image is moved by in either direction.
        d_noise: standard deviation of the noise added to every code that D sees, real or fake.
        balance: whether D and G each wait while the other is far behind, see `may_train`.
        reconstruction: the autoencoder's cost, a name from `models.losses.RECONSTRUCTION_LOSSES`.
        init_std: standard deviation of the initial kernels, or 0 for Glorot-uniform ones.
        precision: "float32", or "bfloat16" for the products of the hidden layers and those that give images;
            weights, outputs and losses are float32 either way.
        seed: int that initial weights and all draws of the training depend on.
    """

    # Whether D sees the label beside the code, so that each class gets its own part of the prior.
    ties_labels_to_prior = False
    # Whether `decode` takes labels beside the codes.
    decodes_labels = False

    def __init__(
        self,
        image_shape,
        n_classes,
        prior,
        n_z,
        attributes=False,
        network="dense",
        n_hidden=1000,
        conv_widths=(16, 32, 64),
        d_hidden=0,
        activation="relu",
        output="sigmoid",
        batch_norm=False,
        keep_prob=0.9,
        noise_std=0.3,
        shift=0,
        d_noise=0.0,
        balance=False,
        reconstruction="mean",
        init_std=0.0,
        precision="float32",
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.n_classes = n_classes
        self.prior_name = prior
        self.n_z = n_z
        self.attributes = attributes
        self.network = network
        self.n_hidden = n_hidden
        self.conv_widths = tuple(conv_widths)
        self.d_hidden = d_hidden
        self.activation = activation
        self.output_activation = output
        self.batch_norm = batch_norm
        self.keep_prob = keep_prob
        self.noise_std = noise_std
        self.shift = shift
        self.d_noise = d_noise
        self.balance = balance
        self.reconstruction = reconstruction
        self.init_std = init_std
        self.precision = precision
        self.seed = seed
        self.prior = registry.load(PRIORS, prior)(n_z, n_classes)

        names = ["encoder", "decoder", *self.discriminator_shapes]
        seeds = [int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in range(len(names))]
        options = {
            name: {
                "activation": activation,
                "keep_prob": keep_prob,
                "init_std": init_std,
                "seed": kernel_seed,
                "name": name,
                "dtype": "mixed_bfloat16" if precision == "bfloat16" else "float32",
            }
            for name, kernel_seed in zip(names, seeds, strict=True)
        }
        encoder, decoder = NETWORKS[network]
        widths = self.conv_widths if network == "conv" else (n_hidden, n_hidden)
        self.encoder = encoder(
            self.image_shape,
            (self.code_size,),
            widths,
            signed_input=output == "tanh",
            batch_norm=batch_norm,
            **options["encoder"],
        )
        self.decoder = decoder(
            (self.decoder_input_size,),
            self.image_shape,
            widths,
            output=output,
            batch_norm=batch_norm,
            **options["decoder"],
        )
        for name, shape in self.discriminator_shapes.items():
            setattr(self, name, DenseNetwork(shape, (1,), [d_hidden or n_hidden] * 2, **options[name]))
        # Counts train steps. All draws of a step are a function of it, so it is saved as a weight.
        self.step = self.add_weight(name="step", dtype="int64", initializer="zeros", trainable=False)
        # The losses of D and G, per discriminator, that `may_train` looks at.
        self.last_losses = self.add_weight(
            name="last_losses", shape=(2,), trainable=False, aggregation="mean"
        )
        self.forget_losses()
        # Counts the steps with a loss that is not finite. No weight: nothing is saved after the first one.
        self.diverged_steps = tf.Variable(
            0, trainable=False, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self.train_trackers = [keras.metrics.Mean(name=name) for name in self.logged]
        self.mse_tracker = keras.metrics.Mean(name="reconstruction_mse")
        self._generated = 0
        self._held = None
        self.built = True

    # What a subclass defines.

    @property
    def discriminator_shapes(self):
        """The discriminators' names, and the shape of one sample that each judges.

        A name is `discriminator`, or that with an ending such as `_z`; its figures are `d_loss`, `d_z_loss`.
        """
        raise NotImplementedError

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
        if self.attributes:
            return tf.cast(labels, tf.float32)
        return tf.one_hot(labels, self.n_classes)

    @property
    def phases(self):
        """What each phase trains, in the order of its optimizer's state."""
        return {
            "ae": self.encoder.trainable_variables + self.decoder.trainable_variables,
            "d": [v for network in self.discriminators.values() for v in network.trainable_variables],
            "g": self.encoder.trainable_variables,
        }

    def last_phase(self, data, seeds):
        """A further phase of the train step, after G; returns what it logs."""
        return {}

    @property
    def logged(self):
        """Names of the figures that the train step logs."""
        figures = ("loss", "accuracy_real", "accuracy_fake")
        of_d = [f"{d}_{figure}" for d in self.discriminators for figure in figures]
        skipped = ["d_skipped", "g_skipped"] if self.balance else []
        return ["reconstruction_loss", *of_d, "g_loss", *skipped]

    def with_label(self, codes, labels, seed=None):
        """Codes (B, n_z), blurred if there is a seed, beside their labels' rows: (B, n_z + K)."""
        return tf.concat([self.blurred(codes, seed), self.label_rows(labels)], axis=1)

    def blurred(self, codes, seed):
        """Codes as D sees them: noise keeps the prior and the codes from being told apart too easily.

        A prior without thickness, such as the swiss roll, and codes never overlap, so without noise D
        wins and G's gradient says nothing (instance noise, arXiv 1610.04490). The distributions match
        with equal noise on both exactly if they match without. Without a seed there is no noise.
        """
        if self.d_noise == 0 or seed is None:
            return codes
        return codes + tf.random.stateless_normal(tf.shape(codes), seed, stddev=self.d_noise)

    # Training.

    def compile(self, jit_compile=False, steps_per_execution=1, **optimizers):
        """Takes one optimizer per phase, e.g. `ae_optimizer`; by default the first seed's Adam for each.

        Args:
            jit_compile: whether XLA compiles the train step: faster on a GPU, slower on a CPU.
            steps_per_execution: train steps per call of the train function.
        """
        # Without optimizer=None, Keras would add an RMSprop that trains nothing.
        super().compile(optimizer=None, jit_compile=jit_compile, steps_per_execution=steps_per_execution)
        for phase, variables in self.phases.items():
            rate = 2e-4 if phase == "d" else 1e-3
            optimizer = optimizers.pop(f"{phase}_optimizer", None) or FusedAdam(rate, epsilon=1e-8)
            # Keras silently skips optimizers that are not built when it saves or loads a model.
            optimizer.build(variables)
            setattr(self, f"{phase}_optimizer", optimizer)
        if optimizers:
            raise TypeError(f"No phase for {', '.join(optimizers)}: there are {', '.join(self.phases)}.")

    def train_step(self, data):
        """One update of the autoencoder (AE), of the discriminators (D) and of the generator (G).

        Args:
            data: images (B, H, W, C), uint8 or float32 in [0, 1], integer labels (B,), and what
                `last_phase` needs.
        """
        seeds = iter(self._step_seeds(SEEDS_PER_STEP))
        images, noised = self.clean_and_noised(data[0], next(seeds))
        labels = data[1]

        # AE: the reconstruction of the clean image trains encoder and decoder.
        with tf.GradientTape() as tape:
            codes = self.encoder(noised, seed=next(seeds))
            reconstructions = self.decoder(self.decoder_input(codes, labels), seed=next(seeds))
            ae_loss = RECONSTRUCTION_LOSSES[self.reconstruction](images, reconstructions)
        self.update("ae", tape, ae_loss)

        # D and G see the same encoder, so one pass through it serves both.
        encoder_tape = tf.GradientTape()
        with encoder_tape:
            fakes = self.fake_samples(self.encoder(noised, seed=next(seeds)), labels, next(seeds))
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
        self.update("d", tape, d_loss, d_may_train)

        # G: the encoder learns to have its codes taken for samples of the priors.
        g_loss = 0.0
        with encoder_tape:
            for network, fake in zip(self.discriminators.values(), fakes, strict=True):
                g_loss += generator_loss(network(fake, seed=next(seeds)))
        self.update("g", encoder_tape, g_loss, g_may_train)
        if self.balance:
            # Of D's two terms the mean, so that ln 2 is the equilibrium of both players.
            self.last_losses.assign(tf.stack([d_loss / 2, g_loss]) / len(self.discriminators))
            logged |= {"d_skipped": ~d_may_train, "g_skipped": ~g_may_train}

        logged |= {"reconstruction_loss": ae_loss, "g_loss": g_loss, **self.last_phase(data, seeds)}
        losses = tf.add_n([value for name, value in logged.items() if name.endswith("loss")])
        self.diverged_steps.assign_add(tf.cast(~tf.math.is_finite(losses), tf.int64))
        self.step.assign_add(1)
        for tracker in self.train_trackers:
            tracker.update_state(logged[tracker.name])

    def may_train(self):
        """Whether D, and whether G, is updated in this step: two boolean scalars (second seed).

        A player whose own loss is below 0.45 while the other's is above 0.95 is too far ahead, by the
        losses of the step before, and waits. Without `balance`, (None, None): nobody ever waits.
        """
        if not self.balance:
            return None, None
        d_loss, g_loss = tf.unstack(tf.convert_to_tensor(self.last_losses))
        return (g_loss < 0.95) | (d_loss > 0.45), (d_loss < 0.95) | (g_loss > 0.45)

    def forget_losses(self):
        """Lets both players begin level, as at the start of every epoch (second seed)."""
        self.last_losses.assign([0.69, 0.69])

    def hold(self, images, labels):
        """Keeps the training images where the model computes, so that batches are indices alone.

        Args:
            images: uint8 (N, H, W, C).
            labels: uint8 (N,), or attributes (N, K).
        """
        self._held = (tf.constant(images), tf.constant(labels))

    def _gathered(self, batch):
        """The data of a train step; batches that are not dicts of indices are data already."""
        if not isinstance(batch, dict):
            return batch
        return tuple(tf.gather(held, chosen) for chosen in batch.values() for held in self._held)

    def clean_and_noised(self, images, seed):
        """Training images, moved about, as the autoencoder's target and as the encoder's input.

        The noise on the input is not clipped (first seed and paper).
        """
        images = to_unit_interval(images)
        if self.shift:
            images = shifted(images, self.shift, tf.random.fold_in(seed, 1))
        if self.noise_std == 0:
            return images, images
        return images, images + self._pixel_noise(tf.shape(images), seed)

    def _pixel_noise(self, shape, seed):
        return tf.random.stateless_normal(shape, seed, stddev=self.noise_std)

    def test_step(self, data):
        """Adds a batch to the reconstruction error: no noise, no dropout."""
        images, labels = to_unit_interval(data[0]), data[1]
        errors = tf.reduce_mean(tf.math.squared_difference(self(images, labels), images), axis=[1, 2, 3])
        self.mse_tracker.update_state(errors)

    def update(self, phase, tape, loss, condition=None):
        """Applies the gradient of a phase's loss to the variables that this phase trains.

        Args:
            condition: a boolean scalar tensor, whether to do so at all; None for always.
        """
        # Gradients are summed over replicas, while every loss is a mean over one replica's batch.
        share = tf.constant(1 / self.distribute_strategy.num_replicas_in_sync)
        variables = self.phases[phase]
        gradients = tape.gradient(loss, variables, output_gradients=share)
        optimizer = getattr(self, f"{phase}_optimizer")
        if condition is None:
            optimizer.apply(gradients, variables)
        else:
            optimizer.apply_if(condition, gradients, variables)

    def _step_seeds(self, count):
        """Seeds (count, 2) that depend on the run's seed, the step and the replica alone."""
        key = tf.stack([tf.constant(self.seed, tf.int64), tf.convert_to_tensor(self.step)])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.unstack(tf.random.split(tf.random.fold_in(key, replica), count))

    @property
    def metrics(self):
        # Those that Keras resets every epoch; without its own loss tracker, which would stay 0.
        return [*self.train_trackers, self.mse_tracker]

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            # XLA would copy the held images with every program, so they are gathered outside of it.
            step = self.train_step
            if self.jit_compile:
                step = tf.function(step, jit_compile=True, autograph=False)

            # AutoGraph would spend seconds on a step, which has no control flow that depends on tensors.
            @tf.autograph.experimental.do_not_convert
            def gather_and_step(batch):
                step(self._gathered(batch))

            @tf.function
            def train_function(iterator):
                for _ in tf.range(self.steps_per_execution):
                    self.distribute_strategy.run(gather_and_step, args=(next(iterator),))
                return {tracker.name: tracker.result() for tracker in self.train_trackers}

            self.train_function = train_function
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            step = tf.autograph.experimental.do_not_convert(self.test_step)

            @tf.function
            def test_function(iterator):
                # Keras counts as many batches a call as in training, but here the last call may find fewer.
                for _ in tf.range(self.steps_per_execution):
                    batch = iterator.get_next_as_optional()
                    if batch.has_value():
                        self.distribute_strategy.run(step, args=(batch.get_value(),))
                return {self.mse_tracker.name: self.mse_tracker.result()}

            self.test_function = test_function
        return self.test_function

    # Use after training: numpy in, numpy out.

    def call(self, images, labels=None):
        """Reconstructs a batch of images: float32 (B, H, W, C) in [0, 1] to the same."""
        return self.decoder(self.decoder_input(self.encoder(images), labels))

    def encode(self, images):
        """Codes of images: (N, H, W, C), uint8 or float32 in [0, 1], to float32 (N, n_z).

        Raises:
            ValueError: if the images have another shape or type.
        """
        return self._encoder_output(images)

    def _encoder_output(self, images):
        return self._in_batches(self.encoder, self._checked_images(images))

    def decode(self, codes, labels=None):
        """Images of codes: (N, n_z) to float32 (N, H, W, C) in [0, 1].

        Args:
            labels: for a decoder that sees them: classes (N,), or rows (N, K), which are one-hot,
                probabilities, or attributes.

        Raises:
            ValueError: if codes or labels have another shape, or a label is out of range.
        """
        codes = self._checked_codes(codes)
        if self.decodes_labels:
            codes = np.concatenate([codes, self._checked_label_rows(labels, len(codes))], axis=1)
        elif labels is not None:
            raise ValueError("The decoder of this model sees no labels.")
        return self._in_batches(self.decoder, codes)

    def _checked_codes(self, codes):
        codes = np.asarray(codes, np.float32)
        if codes.ndim != 2 or codes.shape[1] != self.n_z:
            raise ValueError(f"Expected codes of shape (N, {self.n_z}), got {codes.shape}.")
        return codes

    def _checked_label_rows(self, labels, count):
        labels = np.asarray(labels)
        if labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer) and not self.attributes:
            for extreme in (labels.min(initial=0), labels.max(initial=0)):
                self._check_label(extreme)
            labels = np.eye(self.n_classes)[labels]
        if labels.shape != (count, self.n_classes):
            integers = "" if self.attributes else f"{count} integer labels or "
            raise ValueError(
                f"Expected {integers}labels of shape ({count}, {self.n_classes}), "
                f"got {labels.dtype} labels of shape {labels.shape}."
            )
        return labels.astype(np.float32)

    def judge(self, images, labels):
        """The logit that D gives the code of each image: above 0, it takes it for a sample of the prior.

        Where there are several discriminators, it is the one of the style.

        Args:
            images: (N, H, W, C), uint8 or float32 in [0, 1].
            labels: theirs: classes (N,) or attributes (N, K).

        Returns:
            float32 (N,).
        """
        network = next(iter(self.discriminators.values()))

        def logits(images, labels):
            return network(self.fake_samples(self.encoder(images), labels, None)[0])[:, 0]

        return self._in_batches(logits, self._checked_images(images), np.asarray(labels))

    def reconstruct(self, images, labels=None):
        """Decoded codes of images: (N, H, W, C), uint8 or float32 in [0, 1], to float32 of that shape.

        Args:
            labels: of the images, which a conditional model needs; others do without.
        """
        return self._in_batches(self.call, self._checked_images(images))

    def generate(self, n, label=None, seed=None):
        """Decodes n samples of the prior, or of one label's part of it: float32 (n, H, W, C) in [0, 1].

        Without a `seed` every call draws new samples, the same ones in every process.

        Args:
            label: of all samples: a class, or a row of K attributes. Classes are drawn with equal
                probability where none is given; attributes must be given.

        Raises:
            ValueError: if the label is out of range, is missing, or means nothing to the model.
        """
        if self.attributes and self.decodes_labels:
            rows = np.tile(self._checked_label_rows(np.reshape(label, (1, -1)), 1), (n, 1))
            return self.decode(self.sample_prior(n, seed=seed)[0], rows)
        if label is not None and not (self.labels_have_places or self.decodes_labels):
            raise ValueError(f"This model with the {self.prior_name} prior and n_z {self.n_z} has no labels.")
        self._check_label(label)
        codes, labels = self.sample_prior(n, label, seed)
        return self.decode(codes, labels if self.decodes_labels else None)

    def _check_label(self, label):
        if label is not None and not 0 <= label < self.n_classes:
            raise ValueError(f"Expected a label from 0 to {self.n_classes - 1}, got {label}.")

    def sample_prior(self, n, label=None, seed=None):
        """Draws from the prior outside training.

        Returns:
            codes float32 (n, n_z), and labels int32 (n,): `label`, or drawn with equal probability. The
            codes are drawn for these labels where the model ties labels to the prior.
        """
        if seed is None:
            seed, self._generated = self._generated, self._generated + 1
        label_seed, code_seed = tf.unstack(tf.random.split([self.seed, seed], 2))
        labels = self.prior.sample_labels(n, label_seed) if label is None else tf.fill([n], label)
        codes = self.prior.sample(n, code_seed, labels if self.ties_labels_to_prior else None)
        return codes.numpy(), labels.numpy()

    def _checked_images(self, images):
        images = np.asarray(images)
        expected = f"(N, {', '.join(map(str, self.image_shape))})"
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(f"Expected images of shape {expected}, got {images.shape}.")
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"Expected images of type uint8 or float32, got {images.dtype}.")
        return images

    @staticmethod
    def _in_batches(network, inputs, *others):
        batches = []
        for start in range(0, max(len(inputs), 1), INFERENCE_BATCH):
            chosen = slice(start, start + INFERENCE_BATCH)
            batches.append(network(to_unit_interval(inputs[chosen]), *(o[chosen] for o in others)).numpy())
        return np.concatenate(batches)

    # Saving.

    def get_config(self):
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "n_classes": self.n_classes,
            "prior": self.prior_name,
            "n_z": self.n_z,
            "attributes": self.attributes,
            "network": self.network,
            "n_hidden": self.n_hidden,
            "conv_widths": self.conv_widths,
            "d_hidden": self.d_hidden,
            "activation": self.activation,
            "output": self.output_activation,
            "batch_norm": self.batch_norm,
            "keep_prob": self.keep_prob,
            "noise_std": self.noise_std,
            "shift": self.shift,
            "d_noise": self.d_noise,
            "balance": self.balance,
            "reconstruction": self.reconstruction,
            "init_std": self.init_std,
            "precision": self.precision,
            "seed": self.seed,
        }

    def get_compile_config(self):
        names = [f"{phase}_optimizer" for phase in self.phases]
        return {name: keras.optimizers.serialize(getattr(self, name)) for name in names}

    def compile_from_config(self, config):
        self.compile(**{name: keras.optimizers.deserialize(o) for name, o in config.items()})
