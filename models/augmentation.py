"""What happens to images before a network sees them."""

import tensorflow as tf

from models.layers import dropout


class Augmentation:
    """What a model does to its training images, by its `settings`: a part of `AdversarialAutoencoder`."""

    @property
    def disturbance(self):
        """Standard deviation of the noise on the input now, and the share of its pixels that become 0."""
        of = self.settings
        return (of.input_noise, of.input_dropout) if self.disturbs else (0.0, 0.0)

    def clean_and_noised(self, images, seed):
        """Training images, moved about, as the autoencoder's target and as the encoder's input."""
        return clean_and_noised(images, seed, self.settings.shift, *self.disturbance)

    def copies(self, images, seed, limit=None):
        """Images (B, H, W, C) as float32, distorted, moved about where there is a shift, and noised.

        Args:
            limit: of the distortion; None for that of the consistency's copies.
        """
        limit = self.settings.distortion if limit is None else limit
        if limit:
            seeds = tf.random.fold_in(seed, 3)
            images = distorted(to_unit_interval(images), limit, seeds, self.jit_compile)
        return self.clean_and_noised(images, seed)[1]

    def partly_distorted(self, images, noised, seed):
        """What the encoder sees where D and G train: `noised`, but with `d_distortion` half of it are copies.

        Not all, as codes of images as they are, which serve, are to be matched too.
        """
        if not (self.settings.d_distortion and self.disturbs):
            return noised
        half = tf.shape(images)[0] // 2
        copies = self.copies(images[half:], tf.random.fold_in(seed, 4), self.settings.d_distortion)
        return tf.concat([noised[:half], copies], axis=0)

    def pushed(self, copies, loss):
        """Copies (B, H, W, C), each moved by `vat_radius` to where `loss`, a function of them, grows most.

        Virtual adversarial training (arXiv 1704.03976), but the gradient is that at the copy: unlike the
        image's own it is not 0, so no random step is needed first. Over `vat_ramp` steps the length grows
        from 0: a label that few images teach, and the encoder first reads wrong, would stay wrong.
        """
        radius = self.settings.vat_radius
        if radius == 0:
            return copies
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(copies)
            lost = loss(copies)
        way = tf.math.l2_normalize(tape.gradient(lost, copies), axis=[1, 2, 3], epsilon=1e-30)
        if ramp := self.settings.vat_ramp:
            radius *= tf.minimum(tf.cast(self.step, tf.float32) / ramp, 1)
        return tf.stop_gradient(copies + radius * way)


def to_unit_interval(images):
    """uint8 pixels as float32 in [0, 1]; float32 as it is."""
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    return tf.cast(images, tf.float32)


def shifted(images, limit, seed):
    """Moves each image by whole pixels, from -limit to limit in both directions; zeros move in.

    Args:
        images: float32 (B, H, W, C).
        seed: integer tensor (2,) that the distances depend on.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    padded = tf.pad(images, [[0, 0], [limit, limit], [limit, limit], [0, 0]])
    top, left = tf.unstack(tf.random.stateless_uniform([2, count], seed, 0, 2 * limit + 1, tf.int32))
    rows = tf.gather(padded, top[:, None] + tf.range(height), axis=1, batch_dims=1)
    return tf.gather(rows, left[:, None] + tf.range(width), axis=2, batch_dims=1)


def distorted(images, limit, seed, xla=False):
    """Turns, scales, shears and moves each image by an affine map of its own; zeros come in.

    Args:
        images: float32 (B, H, W, C).
        limit: how far each entry of the map's matrix is from the identity's, at most. The image's middle
            moves by as much of a quarter of its sides.
        seed: integer tensor (2,) that the maps depend on.
        xla: whether XLA compiles it, which has no such operation; what it has is slower without it.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    draws = tf.random.stateless_uniform([6, count], seed, -limit, limit)
    xx, xy, x, yx, yy, y = tf.unstack(draws)
    # Pixel (x, y) shows the image's pixel (a x + b y + c, d x + e y + f); its middle stays, but for the move.
    a, b, d, e = 1 + xx, xy, yx, 1 + yy
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    c = middle_x - a * middle_x - b * middle_y + x * width / 4
    f = middle_y - d * middle_x - e * middle_y + y * height / 4
    if xla:
        rows, columns = tf.range(height, dtype=tf.float32)[:, None], tf.range(width, dtype=tf.float32)
        across, down = (
            p[:, None, None] * columns + q[:, None, None] * rows + r[:, None, None]
            for p, q, r in ((a, b, c), (d, e, f))
        )
        return interpolated(images, across, down)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, c, d, e, f, tf.zeros_like(a), tf.zeros_like(a)], axis=1),
        output_shape=[height, width],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )


def interpolated(images, across, down):
    """The pixels of images (B, H, W, C) at columns and rows (B, H', W'), bilinear; 0 outside."""
    count, height, width, channels = tf.shape(images)[0], *images.shape[1:]
    across, down = tf.clip_by_value(across, -1.0, float(width)), tf.clip_by_value(down, -1.0, float(height))
    left, top = tf.floor(across), tf.floor(down)
    # Of each pixel its right, lower and lower right neighbour too; zeros around the image.
    padded = tf.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]])
    neighbours = tf.concat(
        [padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]], axis=-1
    )
    flat = tf.reshape(neighbours, [count, (height + 2) * (width + 2), 4 * channels])
    chosen = tf.gather(flat, tf.cast((top + 1) * (width + 2) + left + 1, tf.int32), batch_dims=1)
    upper_left, upper_right, lower_left, lower_right = tf.split(chosen, 4, axis=-1)
    x, y = (across - left)[..., None], (down - top)[..., None]
    upper = upper_left + x * (upper_right - upper_left)
    return upper + y * (lower_left + x * (lower_right - lower_left) - upper)


def clean_and_noised(images, seed, shift, noise_std, input_dropout=0.0):
    """Training images, moved about, as a target, and the same with noise, which is not clipped (seed, paper).

    Args:
        images: uint8 (B, H, W, C), or float32 in [0, 1].
        shift: pixels, at most, that each is moved by in either direction.
        noise_std: standard deviation of the noise on every pixel.
        input_dropout: share of the pixels that become 0 after that (paper, section 6).
    """
    images = to_unit_interval(images)
    if shift:
        images = shifted(images, shift, tf.random.fold_in(seed, 1))
    return images, noised(images, seed, noise_std, input_dropout)


def noised(images, seed, noise_std, input_dropout=0.0):
    """Images with normal noise on every pixel, then without a share of the pixels; see `clean_and_noised`."""
    if noise_std:
        images = images + tf.random.stateless_normal(tf.shape(images), seed, stddev=noise_std)
    if input_dropout:
        images = dropout(images, 1 - input_dropout, tf.random.fold_in(seed, 2))
    return images
