"""The same train steps in PyTorch, as its users would write them for speed: the opponent.

The mathematics is that of models/. As there, D and G share one pass through the encoder and nobody
computes a gradient that no update needs; the optimizers are PyTorch's fused ones, one call for all
weights of a phase.
"""

import math
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.cases import INFERENCE_BATCH, WARM_UP_STEPS, images_to_reconstruct, premade_batches
from benchmarks.operations import has_branches, networks

PETAL_STDS, PETAL_SHIFT = (0.5, 0.1), 1.4
TRUNCATED_AT = 2.0
ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.2, inplace=True),
}


def network(layers, config):
    """A stack of layers with what stands between them in `models.networks.Network`."""
    stack = []
    for layer in layers[:-1]:
        stack.append(weights(layer))
        if layer.norm:
            stack.append((nn.BatchNorm1d if layer.side == 1 else nn.BatchNorm2d)(layer.n_out))
        stack.append(ACTIVATIONS[config.activation]())
        if config.keep_prob < 1:
            stack.append(nn.Dropout(1 - config.keep_prob))
    stack.append(weights(layers[-1]))
    # The layout that the images come in, and the faster one.
    return nn.Sequential(*stack).to(memory_format=torch.channels_last)


def weights(layer):
    """The module of a `benchmarks.operations.Layer`."""
    if layer.side == 1:
        module = nn.Linear(layer.n_in, layer.n_out)
    else:
        kind = nn.ConvTranspose2d if layer.transposed else nn.Conv2d
        module = kind(layer.n_in, layer.n_out, layer.kernel, layer.stride, layer.padding)
    nn.init.xavier_uniform_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def gaussian(count, n_z):
    """As `priors.gaussian.Gaussian`: float32 (count, n_z)."""
    return torch.randn(count, n_z)


def truncated_gaussian(count, n_z):
    """As `priors.gaussian.TruncatedGaussian`: float32 (count, n_z)."""
    below = 0.5 * math.erfc(TRUNCATED_AT / math.sqrt(2))
    codes = torch.special.ndtri(below + (1 - 2 * below) * torch.rand(count, n_z))
    return codes.clamp(-TRUNCATED_AT, TRUNCATED_AT)


PRIORS = {"gaussian": gaussian, "truncated_gaussian": truncated_gaussian}


class LabelBranches(nn.Sequential):
    """As `models.networks.LabelBranches`."""

    def forward(self, judged):
        n_labels = self[-1].out_features
        codes, labels = judged[:, :-n_labels], judged[:, -n_labels:]
        return (super().forward(codes) * labels).sum(1, keepdim=True)


class TorchStep:
    """Networks, optimizers and the train step; subclasses say what decoder and discriminators see.

    Args:
        config: the project's `Config`.
        image_shape: (H, W, C).
        n_classes: number of classes or attributes K.
        epsilon: of Adam.
        compiled: whether `torch.compile` translates forward and backward passes.
    """

    # Parts of the step that are compiled.
    parts = ("inputs", "partly_distorted", "ae_loss", "fake_samples", "real_samples", "d_loss", "g_loss")

    def __init__(self, config, image_shape, n_classes, epsilon=1e-8, compiled=False):
        self.config, self.image_shape, self.n_classes = config, image_shape, n_classes
        encoder, decoder, discriminators = networks(config, image_shape, n_classes)
        self.encoder, self.decoder = network(encoder, config), network(decoder, config)
        stacks = [network(layers, config) for layers in discriminators]
        if has_branches(config):
            stacks = [LabelBranches(*stack) for stack in stacks]
        self.discriminators = nn.ModuleList(stacks)
        rates = config.learning_rates(0)
        self.optimizers = {
            phase: self.optimizer(phase, nn.ModuleList(parts).parameters(), rates[phase], epsilon)
            for phase, parts in self.phases.items()
        }
        # The losses of D and G that `--balance` looks at.
        self.last_losses = 0.69, 0.69
        # Sums over the steps, in the order of the project's own figures.
        self.metrics = 0.0
        if compiled:
            for name in self.parts:
                setattr(self, name, torch.compile(getattr(self, name), fullgraph=True, dynamic=False))

    @property
    def phases(self):
        """The networks that each phase trains."""
        return {"ae": [self.encoder, self.decoder], "d": [self.discriminators], "g": [self.encoder]}

    def optimizer(self, phase, parameters, rate, epsilon):
        config = self.config
        if config.optimizer == "adam":
            return torch.optim.Adam(parameters, rate, eps=epsilon, fused=True)
        momentum = config.gan_momentum if phase in ("d", "g") else config.momentum
        return torch.optim.SGD(parameters, rate, momentum, fused=True)

    def inputs(self, images):
        """uint8 (B, H, W, C) to float32 in [0, 1], (B, P) or (B, C, H, W), clean and noised."""
        images = images.permute(0, 3, 1, 2) if self.config.network == "conv" else images.flatten(1)
        clean = images.to(torch.float32) / 255
        return clean, self.with_noise(clean)

    def with_noise(self, images):
        if not self.config.noised or self.config.noise_std == 0:
            return images
        return images + self.config.noise_std * torch.randn_like(images)

    def partly_distorted(self, clean, noised):
        """As `models.augmentation.Augmentation.partly_distorted`, of images in the layout of `inputs`."""
        if self.config.d_distortion == 0:
            return noised
        height, width, channels = self.image_shape
        half = len(clean) // 2
        images = clean[half:]
        if images.ndim == 2:
            images = images.view(-1, height, width, channels).permute(0, 3, 1, 2)
        maps = self.distortion_draws(len(images)) + torch.eye(2, 3)
        # From quarters of a side to PyTorch's places, which run from -1 to 1.
        maps[:, :, 2] *= torch.tensor([width / (width - 1), height / (height - 1)]) / 2
        places = functional.affine_grid(maps, list(images.shape), align_corners=True)
        copies = functional.grid_sample(images, places, align_corners=True)
        if clean.ndim == 2:
            copies = copies.permute(0, 2, 3, 1).flatten(1)
        return torch.cat([noised[:half], self.with_noise(copies)])

    def distortion_draws(self, count):
        """How far each entry of the maps (count, 2, 3) is from the identity's."""
        return (2 * torch.rand(count, 2, 3) - 1) * self.config.d_distortion

    def encode(self, images):
        """The encoder's output (B, code)."""
        return self.encoder(2 * images - 1 if self.config.output == "tanh" else images).flatten(1)

    def decode(self, codes):
        """The decoder's images, in the shape of `inputs`."""
        if self.config.network == "conv":
            codes = codes[:, :, None, None]
        outputs = self.decoder(codes)
        return (outputs.tanh() + 1) / 2 if self.config.output == "tanh" else outputs.sigmoid()

    def ae_loss(self, clean, noised, labels):
        decoded = self.decode(self.decoder_input(self.encode(noised), labels))
        if self.config.reconstruction == "half_sum":
            return functional.mse_loss(decoded, clean, reduction="sum") / (2 * len(clean))
        return functional.mse_loss(decoded, clean)

    def d_loss(self, reals, fakes):
        """D's loss, and for each discriminator its loss and its accuracies on real and fake samples."""
        total, logged = 0.0, []
        for d, real, fake in zip(self.discriminators, reals, fakes, strict=True):
            real_logits, fake_logits = d(torch.cat([real, fake])).chunk(2)
            loss = functional.softplus(-real_logits).mean() + functional.softplus(fake_logits).mean()
            total = total + loss
            accuracies = (real_logits > 0).float().mean(), (fake_logits < 0).float().mean()
            logged += [loss.detach(), *accuracies]
        return total, logged

    def d_penalty(self, reals):
        """What D's slope at real codes costs it."""
        real = reals[0].detach().requires_grad_()
        (slopes,) = torch.autograd.grad(self.discriminators[0](real).sum(), real, create_graph=True)
        return self.config.d_penalty / 2 * slopes[:, : self.config.n_z].square().sum(1).mean()

    def g_loss(self, fakes):
        return sum(
            functional.softplus(-d(fake)).mean() for d, fake in zip(self.discriminators, fakes, strict=True)
        )

    def __call__(self, images, labels, *labelled):
        """One update per phase.

        Args:
            images: uint8 (B, H, W, C).
            labels: int64, classes (B,) or attributes (B, K).
            labelled: for a semi-supervised model, labelled images and their labels.
        """
        clean, noised = self.inputs(images)
        ae_loss = self.ae_loss(clean, noised, labels)
        self.update("ae", ae_loss)

        fakes = self.fake_samples(self.partly_distorted(clean, noised), labels)
        d_may_train, g_may_train = self.may_train()
        reals = self.real_samples(labels)
        d_loss, logged = self.d_loss(reals, [fake.detach() for fake in fakes])
        if d_may_train:
            self.update("d", d_loss + self.d_penalty(reals) if self.config.d_penalty else d_loss)

        # G passes through D's weights and needs no gradient of them.
        self.discriminators.requires_grad_(False)
        g_loss = self.g_loss(fakes)
        if g_may_train:
            self.update("g", g_loss)
        self.discriminators.requires_grad_(True)

        logged = [ae_loss.detach(), *logged, g_loss.detach()]
        if self.config.balance:
            self.last_losses = d_loss.item() / 2, g_loss.item()
            logged += [torch.tensor(float(not trained)) for trained in (d_may_train, g_may_train)]
        self.metrics += torch.stack([*logged, *self.last_phase(clean, *labelled)])

    def may_train(self):
        """Whether D, and whether G, is updated: as `AdversarialAutoencoder.may_train`.

        Here, who waits has no gradients computed either.
        """
        if not self.config.balance:
            return True, True
        d_loss, g_loss = self.last_losses
        return g_loss < 0.95 or d_loss > 0.45, d_loss < 0.95 or g_loss > 0.45

    def last_phase(self, clean):
        """What comes after G, with the clean images as `inputs` returns them; returns what it logs."""
        return ()

    def update(self, phase, loss):
        loss.backward()
        self.optimizers[phase].step()
        self.optimizers[phase].zero_grad(set_to_none=True)

    def blurred(self, codes):
        if self.config.d_noise == 0:
            return codes
        return codes + self.config.d_noise * torch.randn_like(codes)


class SupervisedStep(TorchStep):
    """Of models/supervised_aae.py, with the gaussian mixture prior."""

    def __init__(self, config, image_shape, n_classes, **kwargs):
        angles = 2 * math.pi * torch.arange(n_classes) / n_classes
        along = torch.stack([angles.cos(), angles.sin()], 1)
        across = torch.stack([-angles.sin(), angles.cos()], 1)
        self.rotations = torch.stack([along, across], 1)  # (K, 2, 2)
        super().__init__(config, image_shape, n_classes, **kwargs)

    def decoder_input(self, codes, labels):
        return codes

    def real_samples(self, labels):
        labels = torch.randint(self.n_classes, labels.shape)
        local = torch.randn(len(labels), 1, 2) * torch.tensor(PETAL_STDS) + torch.tensor([PETAL_SHIFT, 0.0])
        return self.with_label(torch.bmm(local, self.rotations[labels])[:, 0], labels)

    def fake_samples(self, noised, labels):
        return self.with_label(self.encode(noised), labels)

    def with_label(self, codes, labels):
        one_hot = functional.one_hot(labels, self.n_classes).to(codes.dtype)
        return [torch.cat([self.blurred(codes), one_hot], 1)]


class SemiSupervisedStep(TorchStep):
    """Of models/semi_supervised_aae.py."""

    parts = (*TorchStep.parts, "label_loss", "cycle_loss")

    @property
    def phases(self):
        cycle = {"cycle": [self.decoder]} if self.config.cycle else {}
        return {**super().phases, "ce": [self.encoder], **cycle}

    def split(self, codes):
        return codes.split([self.config.n_z, self.n_classes], 1)

    def decoder_input(self, codes, labels):
        return torch.cat(self.style_and_label(codes), 1)

    def style_and_label(self, codes):
        style, logits = self.split(codes)
        return style, logits.softmax(1)

    def real_samples(self, labels):
        style = PRIORS[self.config.prior](len(labels), self.config.n_z)
        one_hot = functional.one_hot(torch.randint(self.n_classes, labels.shape), self.n_classes)
        return self.judged(style, one_hot.to(style.dtype))

    def fake_samples(self, noised, labels):
        return self.judged(*self.style_and_label(self.encode(noised)))

    def judged(self, style, label):
        parts = [self.blurred(style), label]
        return [torch.cat(parts, 1)] if self.config.joint_discriminator else parts

    def label_loss(self, images, labels):
        _, logits = self.split(self.encode(self.inputs(images)[1]))
        return functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()

    def cycle_loss(self, clean):
        with torch.no_grad():
            encoded, _ = self.split(self.encode(clean[: len(clean) // 2]))
        drawn, labels = self.cycle_draws(len(clean) - len(encoded), len(clean))
        rows = functional.one_hot(labels, self.n_classes).to(drawn.dtype)
        decoded = self.decode(torch.cat([torch.cat([encoded, drawn]), rows], 1))
        if self.config.noised:
            decoded = decoded + self.config.noise_std * torch.randn_like(decoded)
        _, logits = self.split(self.encode(decoded))
        return functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()

    def cycle_draws(self, n_styles, n_labels):
        """Styles of the prior and labels."""
        return PRIORS[self.config.prior](n_styles, self.config.n_z), torch.randint(
            self.n_classes, (n_labels,)
        )

    def last_phase(self, clean, images, labels):
        loss, accuracy = self.label_loss(images, labels)
        self.update("ce", loss)
        logged = [loss.detach(), accuracy]
        if self.config.cycle:
            # The cycle passes through the encoder's weights and needs no gradient of them.
            self.encoder.requires_grad_(False)
            loss, accuracy = self.cycle_loss(clean)
            self.update("cycle", loss)
            self.encoder.requires_grad_(True)
            logged += [loss.detach(), accuracy]
        return logged


class ConditionalStep(TorchStep):
    """Of models/conditional_aae.py."""

    def decoder_input(self, codes, labels):
        rows = labels if labels.ndim == 2 else functional.one_hot(labels, self.n_classes)
        return torch.cat([codes, rows.to(codes.dtype)], 1)

    def real_samples(self, labels):
        codes = PRIORS[self.config.prior](len(labels), self.config.n_z)
        return [self.decoder_input(self.blurred(codes), labels)]

    def fake_samples(self, noised, labels):
        return [self.decoder_input(self.blurred(self.encode(noised)), labels)]


STEPS = {
    "supervised": SupervisedStep,
    "semi_supervised": SemiSupervisedStep,
    "conditional": ConditionalStep,
}


class TorchContender:
    """Runs the step on batches made beforehand."""

    def __init__(self, case, data, directory, compiled=False):
        torch.set_flush_denormal(True)  # TensorFlow does too
        use_gpu()
        config = case.config()
        self.batch_size = config.batch_size
        self.step = STEPS[config.model](config, data.image_shape, data.n_classes, compiled=compiled)
        batches = [as_tensors(array) for array in premade_batches(config, data)]
        self.batches = list(zip(*batches, strict=True))
        self.run(WARM_UP_STEPS)

    def run(self, steps):
        start = time.perf_counter()
        for index in range(steps):
            self.step(*self.batches[index % len(self.batches)])
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return {"seconds": time.perf_counter() - start, "images": steps * self.batch_size}


class Reconstruct:
    """Encodes and decodes images in batches of the project's size, numpy in and numpy out."""

    def __init__(self, case, data, directory):
        use_gpu()
        config = case.with_flags(noised=False).config()
        self.step = STEPS[config.model](config, data.image_shape, data.n_classes)
        for part in (self.step.encoder, self.step.decoder):
            part.eval()
        self.images, self.labels = images_to_reconstruct(data)
        self.run(1)

    @torch.inference_mode()
    def run(self, steps):
        """All images, however many steps that is."""
        start = time.perf_counter()
        cuts = range(INFERENCE_BATCH, len(self.images), INFERENCE_BATCH)
        pairs = zip(np.split(self.images, cuts), np.split(self.labels, cuts), strict=True)
        np.concatenate([reconstructed(self.step, *pair) for pair in pairs])
        return {"seconds": time.perf_counter() - start, "images": len(self.images)}


def reconstructed(step, images, labels):
    """Images of the decoder, float32 in the layout of PyTorch; labels as the decoder may see them."""
    codes = step.encode(step.inputs(tensor(images))[0])
    return step.decode(step.decoder_input(codes, tensor(labels).long())).cpu().numpy()


def use_gpu():
    """Computes on the GPU, where there is one, and multiplies there as TensorFlow does, in TF32."""
    if torch.cuda.is_available():
        torch.set_default_device("cuda")
        torch.backends.cuda.matmul.allow_tf32 = True


def tensor(array):
    """A numpy array where the step is computed."""
    return torch.as_tensor(array, device=torch.get_default_device())


def as_tensors(array):
    """Images as they are, labels as PyTorch's indices."""
    return tensor(array) if array.ndim == 5 else tensor(array).long()
