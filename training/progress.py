"""What a run says of its progress: one line an epoch where Keras's moving bar would fill a file."""

import time

import keras

from evaluation.report import percent

LONGEST = 120  # characters of a line
# What may head a line, the most telling first: the name in the history, and how it is said.
HEADLINES = {
    "val_error_percent": "validation error {:.2f} %".format,
    "val_component_accuracy": lambda share: f"component accuracy {percent(share)}",
    "val_label_swap_accuracy": lambda share: f"labels obeyed {percent(share)}",
}


class EpochLines(keras.callbacks.Callback):
    """Prints a line after every epoch, and measures how fast the training is.

    Args:
        n_epochs: of the whole training.
        images_per_step: B.
        quiet: whether something else shows the progress, so that only the time is taken.
    """

    def __init__(self, n_epochs, images_per_step, quiet=False):
        super().__init__()
        self.n_epochs = n_epochs
        self.images_per_step = images_per_step
        self.quiet = quiet
        self.begun = self.traced = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.begun is None:
            self.begun, self.first_epoch = time.perf_counter(), epoch

    def on_train_batch_end(self, batch, logs=None):
        # The first call also traces the graph, which takes seconds and is no training.
        if self.traced is None:
            self.traced = time.perf_counter(), int(self.model.step.numpy())

    def on_epoch_end(self, epoch, logs=None):
        if self.quiet:
            return
        done = epoch + 1 - self.first_epoch
        left = (time.perf_counter() - self.begun) / done * (self.n_epochs - epoch - 1)
        print(epoch_line(epoch + 1, self.n_epochs, logs, left), flush=True)

    @property
    def images_per_second(self):
        """Training images per second after the first call of `fit`; in it, where it was the only one."""
        if self.traced is None:
            return 0.0
        now, (since, steps) = time.perf_counter(), self.traced
        if (trained := int(self.model.step.numpy()) - steps) == 0:
            since, trained = self.begun, steps
        return trained * self.images_per_step / (now - since)


def epoch_line(epoch, n_epochs, logs, seconds_left):
    """One line about an epoch (from 1): the figure that matters, the losses, the rate, the time left."""
    parts = [words(logs[name]) for name, words in HEADLINES.items() if name in logs]
    parts.append(f"MSE {logs['val_reconstruction_mse']:.4f}")
    losses = {name.removesuffix("_loss"): logs[name] for name in logs if name.endswith("_loss")}
    parts += [f"{name} {losses[name]:.2f}" for name in losses if name[:2] in ("d", "d_", "g")]
    parts.append(f"rate {logs['ae_learning_rate']:.1e}")
    begin, end = f"epoch {epoch}/{n_epochs}: ", f", {duration(seconds_left)} left"
    # Better without the last figures than with half of one.
    while len(line := begin + ", ".join(parts) + end) > LONGEST:
        parts.pop()
    return line


def duration(seconds):
    """A time as people say it: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
