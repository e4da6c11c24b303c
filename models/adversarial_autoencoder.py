"""The base class of all adversarial autoencoders: networks, the train step, and use after training."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from models import MODELS
from models.dense_network import DenseNetwork
from models.fused_adam import FusedAdam
from models.losses import discriminator_loss, generator_loss, reconstruction_loss
from priors import PRIORS
from utils import registry

# Images per call of a network outside training: bounds the memory, whatever the number asked for.
INFERENCE_BATCH = 1000


class AdversarialAutoencoder(keras.Model):
    """An autoencoder whose codes a discriminator pushes onto a prior (arXiv 1511.05644, section 2).

    A subclass says what the discriminator sees: `discriminator_shape`, `real_samples` and
    `fake_samples`. Everything else lives here.

    Args:
        image_shape: (H, W, C).
        n_classes: number of labels K.
        prior: a name from `priors.PRIORS`.
        n_z: size of the code.
        n_hidden: units per hidden layer of the encoder, the decoder and the discriminator.
        keep_prob: share of hidden units that dropout keeps in training.
        noise_std: standard deviation of the noise added to every input pixel in training.
        d_noise: standard deviation of the noise added to every code that D sees, real or fake.
        seed: int that initial weights and all draws of the training depend on.
    """

    def __init__(
        self,
        image_shape,
        n_classes,
        prior,
        n_z,
        n_hidden=1000,
        keep_prob=0.9,
        noise_std=0.3,
        d_noise=0.0,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.n_classes = n_classes
        self.prior_name = prior
        self.n_z = n_z
        self.n_hidden = n_hidden
        self.keep_prob = keep_prob
        self.noise_std = noise_std
        self.d_noise = d_noise
        self.seed = seed
        self.prior = registry.load(PRIORS, prior)(n_z, n_classes)

        def network(index, name, in_shape, out_shape, activation=None):
            kernel_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
            return DenseNetwork(in_shape, out_shape, n_hidden, keep_prob, activation, kernel_seed, name=name)

        self.encoder = network(0, "encoder", self.image_shape, (n_z,))
        self.decoder = network(1, "decoder", (n_z,), self.image_shape, "sigmoid")
        self.discriminator = network(2, "discriminator", self.discriminator_shape, (1,))
        # Counts train steps. All draws of a step are a function of it, so it is saved as a weight.
        self.step = self.add_weight(name="step", dtype="int64", initializer="zeros", trainable=False)
        self.train_trackers = [
            keras.metrics.Mean(name=name)
            for name in (
                "reconstruction_loss",
                "d_loss",
                "g_loss",
                "d_accuracy_real",
                "d_accuracy_fake",
            )
        ]
        self.mse_tracker = keras.metrics.Mean(name="reconstruction_mse")
        self._generated = 0
        self.built = True

    # What a subclass defines.

    @property
    def discriminator_shape(self):
        """Shape of one sample that the discriminator judges."""
        raise NotImplementedError

    def real_samples(self, labels, seed):
        """Samples of the prior for D, as many as there are labels in the batch (B,)."""
        raise NotImplementedError

    def fake_samples(self, codes, labels, seed):
        """What D sees of the encoder's codes (B, n_z) and the batch's labels (B,)."""
        raise NotImplementedError

    def blurred(self, codes, seed):
        """Codes as D sees them: noise keeps the prior and the codes from being told apart too easily.

        A prior without thickness, such as the swiss roll, and codes never overlap, so without noise D
        wins and G's gradient says nothing (instance noise, arXiv 1610.04490). The distributions match
        with equal noise on both exactly if they match without.
        """
        if self.d_noise == 0:
            return codes
        return codes + tf.random.stateless_normal(tf.shape(codes), seed, stddev=self.d_noise)

    # Training.

    def compile(self, ae_optimizer=None, d_optimizer=None, g_optimizer=None, **kwargs):
        """Takes one optimizer per phase, by default the first seed's Adam, with D at a fifth of the rate."""
        # Without optimizer=None, Keras would add an RMSprop that trains nothing. XLA is slower on a CPU.
        super().compile(optimizer=None, jit_compile=False, **kwargs)
        self.ae_optimizer = ae_optimizer or FusedAdam(1e-3, epsilon=1e-8)
        self.d_optimizer = d_optimizer or FusedAdam(2e-4, epsilon=1e-8)
        self.g_optimizer = g_optimizer or FusedAdam(1e-3, epsilon=1e-8)
        # Keras silently skips optimizers that are not built when it saves or loads a model.
        self.ae_optimizer.build(self.autoencoder_variables)
        self.d_optimizer.build(self.discriminator.trainable_variables)
        self.g_optimizer.build(self.encoder.trainable_variables)

    @property
    def autoencoder_variables(self):
        """What the AE phase trains, in the order of its optimizer's state."""
        return self.encoder.trainable_variables + self.decoder.trainable_variables

    def train_step(self, data):
        """One update of the autoencoder (AE), of the discriminator (D) and of the generator (G).

        Args:
            data: images (B, H, W, C), uint8 or float32 in [0, 1], and integer labels (B,).
        """
        images, labels = data
        images = to_unit_interval(images)
        noise_seed, ae_encoder_seed, decoder_seed, encoder_seed, blur_seed, prior_seed, d_seed, g_seed = (
            self._step_seeds(8)
        )
        noised = images
        if self.noise_std > 0:
            noised += tf.random.stateless_normal(tf.shape(images), noise_seed, stddev=self.noise_std)

        # AE: the reconstruction of the clean image trains encoder and decoder.
        with tf.GradientTape() as tape:
            codes = self.encoder(noised, seed=ae_encoder_seed)
            reconstructions = self.decoder(codes, seed=decoder_seed)
            ae_loss = reconstruction_loss(images, reconstructions)
        self._update(tape, ae_loss, self.ae_optimizer, self.autoencoder_variables)

        # D and G see the same encoder, so one pass through it serves both.
        encoder_tape = tf.GradientTape()
        with encoder_tape:
            fake = self.fake_samples(self.encoder(noised, seed=encoder_seed), labels, blur_seed)
        real = self.real_samples(labels, prior_seed)

        # D: learns to tell the prior's samples from the codes; the encoder must not learn from it.
        with tf.GradientTape() as tape:
            judged = tf.concat([real, tf.stop_gradient(fake)], axis=0)
            real_logits, fake_logits = tf.split(self.discriminator(judged, seed=d_seed), 2)
            d_loss = discriminator_loss(real_logits, fake_logits)
        self._update(tape, d_loss, self.d_optimizer, self.discriminator.trainable_variables)

        # G: the encoder learns to have its codes taken for samples of the prior.
        with encoder_tape:
            g_loss = generator_loss(self.discriminator(fake, seed=g_seed))
        self._update(encoder_tape, g_loss, self.g_optimizer, self.encoder.trainable_variables)

        self.step.assign_add(1)
        health = (ae_loss, d_loss, g_loss, real_logits > 0, fake_logits < 0)
        for tracker, value in zip(self.train_trackers, health, strict=True):
            tracker.update_state(value)

    def test_step(self, data):
        """Adds a batch to the reconstruction error: no noise, no dropout."""
        images = to_unit_interval(data[0])
        errors = tf.reduce_mean(tf.math.squared_difference(self(images), images), axis=[1, 2, 3])
        self.mse_tracker.update_state(errors)

    def _update(self, tape, loss, optimizer, variables):
        """Applies the gradient of a phase's loss to the variables that this phase trains."""
        # Gradients are summed over replicas, while every loss is a mean over one replica's batch.
        share = tf.constant(1 / self.distribute_strategy.num_replicas_in_sync)
        optimizer.apply(tape.gradient(loss, variables, output_gradients=share), variables)

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
            self.train_function = self._step_function(
                self.train_step, self.train_trackers, self.steps_per_execution
            )
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            self.test_function = self._step_function(self.test_step, [self.mse_tracker], 1)
        return self.test_function

    def _step_function(self, step, trackers, steps_per_execution):
        """The one outer `tf.function`: runs `step` on the iterator's next batches, on every replica."""

        @tf.function
        def step_function(iterator):
            for _ in tf.range(steps_per_execution):
                self.distribute_strategy.run(step, args=(next(iterator),))
            return {tracker.name: tracker.result() for tracker in trackers}

        return step_function

    # Use after training: numpy in, numpy out.

    def call(self, images):
        """Reconstructs a batch of images: float32 (B, H, W, C) in [0, 1] to the same."""
        return self.decoder(self.encoder(images))

    def encode(self, images):
        """Codes of images: (N, H, W, C), uint8 or float32 in [0, 1], to float32 (N, n_z).

        Raises:
            ValueError: if the images have another shape or type.
        """
        return self._in_batches(self.encoder, self._checked_images(images))

    def decode(self, codes):
        """Images of codes: (N, n_z) to float32 (N, H, W, C) in [0, 1].

        Raises:
            ValueError: if the codes have another shape.
        """
        codes = np.asarray(codes, np.float32)
        if codes.ndim != 2 or codes.shape[1] != self.n_z:
            raise ValueError(f"Expected codes of shape (N, {self.n_z}), got {codes.shape}.")
        return self._in_batches(self.decoder, codes)

    def reconstruct(self, images):
        """Decoded codes of images: (N, H, W, C), uint8 or float32 in [0, 1], to float32 of that shape."""
        return self.decode(self.encode(images))

    def generate(self, n, label=None, seed=None):
        """Decodes n samples of the prior, or of one label's part of it: float32 (n, H, W, C) in [0, 1].

        Without a `seed` every call draws new samples, the same ones in every process.

        Raises:
            ValueError: if a label is given that is out of range, or that the prior does not know.
        """
        if label is not None and not self.prior.uses_labels:
            raise ValueError(f"The {self.prior_name} prior with n_z {self.n_z} has no labels.")
        if label is not None and not 0 <= label < self.n_classes:
            raise ValueError(f"Expected a label from 0 to {self.n_classes - 1}, got {label}.")
        return self.decode(self.sample_prior(n, label, seed)[0])

    def sample_prior(self, n, label=None, seed=None):
        """Draws from the prior outside training.

        Returns:
            codes float32 (n, n_z), and the labels drawn with them int32 (n,).
        """
        if seed is None:
            seed, self._generated = self._generated, self._generated + 1
        label_seed, code_seed = tf.unstack(tf.random.split([self.seed, seed], 2))
        labels = self.prior.sample_labels(n, label_seed) if label is None else tf.fill([n], label)
        return self.prior.sample(n, code_seed, labels).numpy(), labels.numpy()

    def _checked_images(self, images):
        images = np.asarray(images)
        expected = f"(N, {', '.join(map(str, self.image_shape))})"
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(f"Expected images of shape {expected}, got {images.shape}.")
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"Expected images of type uint8 or float32, got {images.dtype}.")
        return images

    @staticmethod
    def _in_batches(network, inputs):
        batches = [
            network(to_unit_interval(inputs[start : start + INFERENCE_BATCH])).numpy()
            for start in range(0, max(len(inputs), 1), INFERENCE_BATCH)
        ]
        return np.concatenate(batches)

    # Saving.

    def get_config(self):
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "n_classes": self.n_classes,
            "prior": self.prior_name,
            "n_z": self.n_z,
            "n_hidden": self.n_hidden,
            "keep_prob": self.keep_prob,
            "noise_std": self.noise_std,
            "d_noise": self.d_noise,
            "seed": self.seed,
        }

    def get_compile_config(self):
        names = ["ae_optimizer", "d_optimizer", "g_optimizer"]
        return {name: keras.optimizers.serialize(getattr(self, name)) for name in names}

    def compile_from_config(self, config):
        self.compile(**{name: keras.optimizers.deserialize(o) for name, o in config.items()})


def to_unit_interval(images):
    """uint8 pixels as float32 in [0, 1]; float32 as it is."""
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    return tf.cast(images, tf.float32)


def load_model(path):
    """Loads a trained model, with its optimizers, from a run directory or a .keras file.

    Raises:
        FileNotFoundError: if there is no model.
    """
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"There is no trained model at {file}.")
    for name in MODELS:
        registry.load(MODELS, name)  # registers the class with Keras
    return keras.saving.load_model(file, safe_mode=True)
