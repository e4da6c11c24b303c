"""What happens between epochs: learning rates, history, checkpoints, TensorBoard, previews."""

import contextlib
import csv
import gc
import io
import math
import os
import signal
import time

import keras
import numpy as np
import tensorflow as tf

from utils import plots
from utils.checkpoints import Checkpoint, save_checkpoint
from utils.errors import Stopped, UserError
from utils.evaluation import decode_samples, error_percent, evenly, label_obeyed
from utils.files import atomic_path, read_history, write_text

PREVIEW_EVERY = 5  # epochs
N_SWAPPED_AN_EPOCH = 200  # validation images, decoded with every label
N_PREVIEWED = 2000  # test images whose codes TensorBoard and the previews show
# When D has won: its accuracies, or G's loss as a multiple of its equilibrium, over so many epochs.
PINNED = 0.98
FAR = 4
LONG = 10


class LearningRates(keras.callbacks.Callback):
    """Sets every optimizer's learning rate at the start of an epoch, and logs it.

    Args:
        learning_rates: function of the epoch (from 0) and the validation errors of the epochs before that
            gives the rate of each phase by its name.
        history: the `History` with these errors, which a resumed run finds there as well.
    """

    def __init__(self, learning_rates, history):
        super().__init__()
        self.learning_rates = learning_rates
        self.history = history

    def on_epoch_begin(self, epoch, logs=None):
        errors = [row["val_reconstruction_mse"] for row in self.history.rows]
        self.rates = self.learning_rates(epoch, errors)
        for phase, rate in self.rates.items():
            getattr(self.model, f"{phase}_optimizer").learning_rate = rate

    def on_epoch_end(self, epoch, logs=None):
        for phase in self.rates:
            rate = getattr(self.model, f"{phase}_optimizer").learning_rate
            logs[f"{phase}_learning_rate"] = float(rate)


class FreshPlayers(keras.callbacks.Callback):
    """Lets D and G begin each epoch level; one that is resumed in its middle goes on as it was."""

    def __init__(self, steps_per_epoch):
        super().__init__()
        self.steps_per_epoch = steps_per_epoch

    def on_epoch_begin(self, epoch, logs=None):
        if int(self.model.step) % self.steps_per_epoch == 0:
            self.model.forget_losses()


class History(keras.callbacks.Callback):
    """Keeps history.csv: one row per finished epoch, the whole file rewritten atomically.

    Args:
        path: of the file; the rows of the `first_epoch` finished epochs that it holds are kept.
    """

    def __init__(self, path, first_epoch):
        super().__init__()
        self.path = path
        self.rows = read_history(path)[:first_epoch] if first_epoch else []

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}})
        text = io.StringIO()
        # A run that began with an earlier version may have gained columns.
        columns = dict.fromkeys(name for row in self.rows for name in row)
        writer = csv.DictWriter(text, columns, restval="nan", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


class Checkpoints(keras.callbacks.Callback):
    """Saves the whole model after every epoch, as often as is asked for within epochs, and when stopped.

    It also brings back an epoch that an earlier process began, since `fit` begins every epoch at its
    start: it restores the running means and ends the epoch after the steps that were left of it. Must be
    the last callback, so that all that belongs to an epoch is written when its checkpoint is.

    Args:
        run: a `Run`.
        signals: list of the signals that have been caught, see `caught_signals`.
    """

    def __init__(self, run, signals):
        super().__init__()
        self.run = run
        self.signals = signals
        self.interval = run.config.checkpoint_interval or (math.inf, "step")

    def on_train_begin(self, logs=None):
        self._note_time(self.run.begin)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        begin = self.run.begin
        self.done_before = begin.step if epoch == begin.epoch else 0
        if self.done_before:
            for metric in self.model.train_trackers:
                for variable, value in zip(metric.variables, begin.means[metric.name], strict=True):
                    variable.assign(value)

    def on_train_batch_end(self, batch, logs=None):
        done = self.done_before + batch + 1
        if done == self.run.steps_per_epoch:
            # Ends the epoch in `fit`, too, if it began in another process.
            self.model.stop_training = self.done_before > 0
        elif self.signals or self._is_due(done):
            means = {m.name: [float(v) for v in m.variables] for m in self.model.train_trackers}
            self._save(Checkpoint(self.epoch, done, means))

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = False
        self._save(Checkpoint(epoch + 1))

    def _is_due(self, done):
        count, unit = self.interval
        if unit == "minute":
            return time.monotonic() - self.saved_at >= 60 * count
        return self.run.train_steps(Checkpoint(self.epoch, done)) - self.saved_step >= count

    def _note_time(self, checkpoint):
        self.saved_at, self.saved_step = time.monotonic(), self.run.train_steps(checkpoint)

    def _save(self, checkpoint):
        check_weights(self.model, self.run)
        save_checkpoint(self.model, self.run.checkpoints, checkpoint, self.run.describe())
        self._note_time(checkpoint)
        if self.signals:
            raise stopped(self.signals, self.run)


def stopped(signals, run):
    """The `Stopped` about the first of the signals that have been caught; all is saved."""
    name = signal.Signals(signals[0]).name
    return Stopped(signals[0], f"stopped by {name}. {run.last_good} Go on with {run.resume_command}")


@contextlib.contextmanager
def caught_signals():
    """Yields a list that takes up the first SIGTERM or Ctrl-C; a second one acts as it always does."""
    caught = []

    def catch(number, frame):
        caught.append(number)
        signal.signal(number, usual[number])
        # Not print, which the signal may have interrupted.
        os.write(2, b"\nSaving a checkpoint before the end; a second signal ends at once.\n")

    # A shell may have told a process in the background to ignore Ctrl-C.
    numbers = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
    usual = {number: signal.signal(number, catch) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


class StopOnNaN(keras.callbacks.Callback):
    """Stops the run as soon as a figure is no longer finite, before a checkpoint is written.

    Args:
        run: a `Run`.
    """

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_train_batch_end(self, batch, logs=None):
        self._check(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs)

    def _check(self, logs):
        if broken := [name for name, value in logs.items() if not math.isfinite(value)]:
            raise _diverged(self.model, self.run, ", ".join(broken))


def check_weights(model, run):
    """Raises a UserError if a weight or an optimizer's state is not finite: a loss may not show it yet."""
    optimizers = [getattr(model, f"{phase}_optimizer") for phase in model.phases]
    for variable in [v for owner in (model, *optimizers) for v in owner.variables]:
        if variable.dtype.startswith("float") and not tf.reduce_all(tf.math.is_finite(variable.value)):
            raise _diverged(model, run, variable.path)


def _diverged(model, run, what):
    """The UserError about NaN or infinity in something, and about the step whose losses had it first."""
    finite = int(model.step) - int(model.diverged_steps)
    # What no loss has shown yet is of the last step.
    epoch, step = divmod(min(finite, int(model.step) - 1), run.steps_per_epoch)
    rates = [
        f"{phase} {float(getattr(model, f'{phase}_optimizer').learning_rate):g}" for phase in model.phases
    ]
    return UserError(
        f"{what} became NaN or infinite in epoch {epoch + 1}, step {step + 1}, with learning rates "
        f"{', '.join(rates)}: try a smaller --lr_start in a new run. {run.last_good}"
    )


class CollapseWarning(keras.callbacks.Callback):
    """Says once in a run that D has won, as soon as the history shows it for long.

    Args:
        history: the `History` callback, which must come before this one.
    """

    def __init__(self, history):
        super().__init__()
        self.history = history
        self.said = any(has_collapsed(history.rows[:end]) for end in range(len(history.rows) + 1))

    def on_epoch_end(self, epoch, logs=None):
        if not self.said and has_collapsed(self.history.rows):
            self.said = True
            print(
                f"WARNING: for {LONG} epochs D has told codes and prior apart nearly always, or G's loss has "
                "been far above its equilibrium, so that G learns nothing. A larger --d_noise, a smaller "
                "--d_rate or a larger --g_rate, in a new run, keeps D in reach.",
                flush=True,
            )


def has_collapsed(rows):
    """Whether a discriminator has won in all of the last epochs, or G's loss says so.

    Args:
        rows: the rows of history.csv so far.
    """
    if len(rows) < LONG:
        return False
    of_d = [name.removesuffix("accuracy_real") for name in rows[0] if name.endswith("accuracy_real")]
    pinned = [
        all(min(row[f"{d}accuracy_real"], row[f"{d}accuracy_fake"]) > PINNED for row in rows[-LONG:])
        for d in of_d
    ]
    # Undecided discriminators give G a loss of ln 2 each.
    return any(pinned) or all(row["g_loss"] > FAR * len(of_d) * math.log(2) for row in rows[-LONG:])


class TensorBoard(keras.callbacks.Callback):
    """Writes scalars and code histograms after every epoch, and the previews as images.

    Args:
        directory: of the event files.
        images: uint8 (N, H, W, C) whose codes the histograms show.
        first_epoch: number of finished epochs; what the files hold of later ones is removed.
    """

    def __init__(self, directory, images, first_epoch):
        super().__init__()
        keep_events(directory, first_epoch)
        self.directory = directory
        self.writer = tf.summary.create_file_writer(str(directory))
        self.images = images

    def on_epoch_end(self, epoch, logs=None):
        codes = self.model.encode(self.images)
        with self.writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(name, value)
            tf.summary.histogram("codes", codes)
        self._flush()

    def add_scalars(self, figures, step):
        """Shows the figures of metrics.json, under `final/`."""
        with self.writer.as_default(step=step):
            for name, value in figures.items():
                tf.summary.scalar(f"final/{name}", value)
        self._flush()

    def add_picture(self, name, path, step):
        """Shows a PNG file."""
        picture = tf.io.decode_png(path.read_bytes(), channels=3)
        with self.writer.as_default(step=step):
            tf.summary.image(name, picture[None])
        self._flush()

    def _flush(self):
        self.writer.flush()
        # The writer itself does not notice that its file is gone.
        if not any(self.directory.glob(f"events.*.{os.getpid()}.*")):
            raise FileNotFoundError(f"the file of TensorBoard in {self.directory} has vanished")


def keep_events(directory, epoch):
    """Removes from TensorBoard's files what a run that goes on after an epoch will write again.

    That is everything of later epochs, and the pictures and figures of the end of a shorter training.
    """

    def stays(event):
        if event.step == epoch and event.summary.value:
            value = event.summary.value[0]
            is_picture = value.metadata.plugin_data.plugin_name == "images"
            return not value.tag.startswith("final/") and (
                not is_picture or value.tag.startswith("preview/")
            )
        return event.step <= epoch

    for path in directory.glob("events.*"):
        with atomic_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            # A process that was killed may have left half a record at the end.
            records = tf.data.TFRecordDataset(str(path)).ignore_errors()
            for record in records.as_numpy_iterator():
                if stays(tf.compat.v1.Event.FromString(record)):
                    writer.write(record)


class LabelFigures(keras.callbacks.Callback):
    """Logs, after every epoch, what can be said about labels on the validation split.

    That is the share of its images that the model gives a wrong label, and, with a reader, how often styles
    decoded with another label show it.

    Args:
        data: an `ImageData`.
        reader: a `LabelReader`, or None.
    """

    def __init__(self, data, reader):
        super().__init__()
        self.images, self.labels = data.validation_images, data.validation_labels
        self.reader = reader

    def on_epoch_end(self, epoch, logs=None):
        if hasattr(self.model, "classify"):
            logs["val_error_percent"] = error_percent(self.model.classify(self.images), self.labels)
        if self.reader:
            styles = self.model.encode(evenly(self.images, N_SWAPPED_AN_EPOCH))
            shares = [
                label_obeyed(self.model, styles, label, self.reader) for label in range(self.model.n_classes)
            ]
            logs["val_label_swap_accuracy"] = float(np.mean(shares))


class Previews(keras.callbacks.Callback):
    """Draws the samples of the same fixed codes, and the coding space, every few epochs.

    Args:
        directory: plots/previews.
        data: an `ImageData`.
        codes: float (N, n_z), drawn once from the prior.
        limit: of the axes of the coding space.
        tensorboard: the `TensorBoard` callback that shows the pictures too.
    """

    def __init__(self, directory, data, codes, limit, tensorboard):
        super().__init__()
        self.directory = directory
        self.data = data
        self.codes = codes
        self.limit = limit
        self.tensorboard = tensorboard

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % PREVIEW_EVERY and epoch != 0:
            return
        self.directory.mkdir(exist_ok=True)
        title = f"after epoch {epoch + 1}"
        path = self.directory / f"samples_{epoch + 1:05d}.png"
        images = decode_samples(self.model, self.codes, self.data)
        plots.save_image_grid(path, images, 10, f"Samples {title}", self.data.note)
        self.tensorboard.add_picture("preview/samples", path, epoch + 1)
        if self.model.n_z == 2:
            path = self.directory / f"codes_{epoch + 1:05d}.png"
            codes = self.model.encode(self.data.test_images[:N_PREVIEWED])
            labels = self.data.test_labels[:N_PREVIEWED]
            plots.save_codes(path, codes, labels, self.limit, f"Codes {title}", self.data.note)
            self.tensorboard.add_picture("preview/codes", path, epoch + 1)
        # Figures leave megabytes in cycles, which Python would not look for in many epochs.
        gc.collect()
