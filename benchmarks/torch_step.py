"""The same train step in PyTorch, as its users would write it for speed: the opponent.

The mathematics is that of models/supervised_aae.py with the gaussian mixture prior. As there, D and G
share one pass through the encoder and nobody computes a gradient that no update needs; the optimizers
are PyTorch's fused Adam, one call for all weights of a phase.
"""

import math
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.sizes import WARM_UP_STEPS, premade_batches

NOISE_STD = 0.3
PETAL_STDS, PETAL_SHIFT = (0.5, 0.1), 1.4


def dense_network(n_in, n_hidden, n_out, keep_prob):
    """Two hidden ReLU layers with dropout and an output layer: float32 (B, n_in) to (B, n_out)."""
    network = nn.Sequential(
        nn.Linear(n_in, n_hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(1 - keep_prob),
        nn.Linear(n_hidden, n_hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(1 - keep_prob),
        nn.Linear(n_hidden, n_out),
    )
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


class TorchStep:
    """Networks, optimizers and the train step.

    Args:
        config: the project's `Config`.
        n_pixels: values of one image.
        noise_std: standard deviation of the noise on the input.
        epsilon: of Adam.
        compiled: whether `torch.compile` translates forward and backward passes.
    """

    def __init__(self, config, n_pixels, n_classes, noise_std=NOISE_STD, epsilon=1e-8, compiled=False):
        self.noise_std, self.d_noise = noise_std, config.d_noise
        self.n_classes = n_classes
        hidden = (config.n_hidden, config.keep_prob)

        def network(n_in, n_out):
            return dense_network(n_in, hidden[0], n_out, hidden[1])

        self.encoder = network(n_pixels, config.n_z)
        self.decoder = network(config.n_z, n_pixels)
        self.discriminator = network(config.n_z + n_classes, 1)
        rates = config.learning_rates(0)
        self.ae_optimizer, self.d_optimizer, self.g_optimizer = (
            torch.optim.Adam(
                [weight for part in parts for weight in part.parameters()], rate, eps=epsilon, fused=True
            )
            for parts, rate in (
                ((self.encoder, self.decoder), rates["ae"]),
                ((self.discriminator,), rates["d"]),
                ((self.encoder,), rates["g"]),
            )
        )
        angles = 2 * math.pi * torch.arange(n_classes) / n_classes
        along = torch.stack([angles.cos(), angles.sin()], 1)
        across = torch.stack([-angles.sin(), angles.cos()], 1)
        self.rotations = torch.stack([along, across], 1)  # (K, 2, 2)
        # reconstruction loss, d_loss, g_loss, D's accuracies on real and fake: sums over the steps
        self.metrics = torch.zeros(5)
        if compiled:
            for name in ("inputs", "ae_loss", "fake_samples", "real_samples", "d_loss", "g_loss"):
                setattr(self, name, torch.compile(getattr(self, name), fullgraph=True, dynamic=False))

    def inputs(self, images):
        """uint8 (B, H, W, C) to float32 (B, P) in [0, 1], clean and noised."""
        clean = images.flatten(1).to(torch.float32) / 255
        if self.noise_std == 0:
            return clean, clean
        return clean, clean + self.noise_std * torch.randn_like(clean)

    def ae_loss(self, clean, noised):
        return functional.mse_loss(self.decoder(self.encoder(noised)).sigmoid(), clean)

    def fake_samples(self, noised, labels):
        return self.with_label(self.encoder(noised), labels)

    def real_samples(self, labels):
        labels = torch.randint(self.n_classes, labels.shape)
        local = torch.randn(len(labels), 1, 2) * torch.tensor(PETAL_STDS) + torch.tensor([PETAL_SHIFT, 0.0])
        return self.with_label(torch.bmm(local, self.rotations[labels])[:, 0], labels)

    def with_label(self, codes, labels):
        if self.d_noise > 0:
            codes = codes + self.d_noise * torch.randn_like(codes)
        return torch.cat([codes, functional.one_hot(labels, self.n_classes).to(codes.dtype)], 1)

    def d_loss(self, real, fake):
        real_logits, fake_logits = self.discriminator(torch.cat([real, fake])).chunk(2)
        loss = functional.softplus(-real_logits).mean() + functional.softplus(fake_logits).mean()
        accuracies = (real_logits > 0).float().mean(), (fake_logits < 0).float().mean()
        return loss, *accuracies

    def g_loss(self, fake):
        return functional.softplus(-self.discriminator(fake)).mean()

    def __call__(self, images, labels):
        """One update of the autoencoder, of D and of G: uint8 (B, H, W, C), int64 (B,)."""
        clean, noised = self.inputs(images)
        ae_loss = self.ae_loss(clean, noised)
        self.update(ae_loss, self.ae_optimizer)

        fake = self.fake_samples(noised, labels)
        d_loss, real_accuracy, fake_accuracy = self.d_loss(self.real_samples(labels), fake.detach())
        self.update(d_loss, self.d_optimizer)

        # G passes through D's weights and needs no gradient of them.
        self.discriminator.requires_grad_(False)
        g_loss = self.g_loss(fake)
        self.update(g_loss, self.g_optimizer)
        self.discriminator.requires_grad_(True)

        losses = (ae_loss.detach(), d_loss.detach(), g_loss.detach())
        self.metrics += torch.stack([*losses, real_accuracy, fake_accuracy])

    @staticmethod
    def update(loss, optimizer):
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class TorchContender:
    """Runs the step on batches made beforehand."""

    def __init__(self, size, data, directory, compiled=False):
        torch.set_flush_denormal(True)  # TensorFlow does too
        self.step = TorchStep(
            size.config(), int(np.prod(data.image_shape)), data.n_classes, compiled=compiled
        )
        images, labels = premade_batches(data, size.batch_size)
        self.batches = list(zip(torch.from_numpy(images), torch.from_numpy(labels).long(), strict=True))
        self.run(WARM_UP_STEPS)

    def run(self, steps):
        start = time.perf_counter()
        for index in range(steps):
            images, labels = self.batches[index % len(self.batches)]
            self.step(images, labels)
        return {"seconds": time.perf_counter() - start, "images": steps * len(labels)}
