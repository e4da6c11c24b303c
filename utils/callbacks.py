"""What happens between epochs: learning rates, history, checkpoints, TensorBoard, previews."""

import csv
import io
import math

import keras
import tensorflow as tf

from utils import plots
from utils.evaluation import decode_samples, error_percent
from utils.files import atomic_path, write_text

PREVIEW_EVERY = 5  # epochs
N_PREVIEWED = 2000  # test images whose codes TensorBoard and the previews show
KEPT_CHECKPOINTS = 2


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
        path: of the file; rows of epochs before `first_epoch` that it already holds are kept.
    """

    def __init__(self, path, first_epoch):
        super().__init__()
        self.path = path
        self.rows = read_history(path)[:first_epoch] if path.exists() else []

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}})
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def read_history(path):
    """The rows of a history.csv as dicts of floats, `epoch` an int."""
    with open(path, newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [{**row, "epoch": int(row["epoch"])} for row in rows]


class Checkpoints(keras.callbacks.Callback):
    """Saves the whole model, optimizers and step count included, after every epoch; keeps the last two."""

    def __init__(self, directory):
        super().__init__()
        self.directory = directory

    def on_epoch_end(self, epoch, logs=None):
        save_model(self.model, self.directory / f"epoch_{epoch + 1:05d}.keras")
        for path in sorted(self.directory.glob("epoch_*.keras"))[:-KEPT_CHECKPOINTS]:
            path.unlink()


def save_model(model, path):
    """Writes a .keras file atomically."""
    with atomic_path(path) as temporary:
        model.save(temporary)


class StopOnNaN(keras.callbacks.Callback):
    """Stops the run when a loss is no longer finite, before a checkpoint of it is written."""

    def on_epoch_end(self, epoch, logs=None):
        broken = [name for name, value in logs.items() if not math.isfinite(value)]
        if broken:
            rate = logs["ae_learning_rate"]
            raise FloatingPointError(
                f"{', '.join(broken)} became NaN or infinite in epoch {epoch + 1} (learning rate "
                f"{rate:g}): try a smaller --lr_start; the last checkpoint is from before that."
            )


class TensorBoard(keras.callbacks.Callback):
    """Writes scalars and code histograms after every epoch, and the previews as images.

    Args:
        directory: of the event files.
        images: uint8 (N, H, W, C) whose codes the histograms show.
    """

    def __init__(self, directory, images):
        super().__init__()
        self.writer = tf.summary.create_file_writer(str(directory))
        self.images = images

    def on_epoch_end(self, epoch, logs=None):
        codes = self.model.encode(self.images)
        with self.writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(name, value)
            tf.summary.histogram("codes", codes)
        self.writer.flush()

    def add_picture(self, name, path, step):
        """Shows a PNG file."""
        picture = tf.io.decode_png(path.read_bytes(), channels=3)
        with self.writer.as_default(step=step):
            tf.summary.image(name, picture[None])

    def on_train_end(self, logs=None):
        self.writer.flush()


class TestError(keras.callbacks.Callback):
    """Logs the share of test images that the model gives a wrong label, after every epoch.

    For the curve only: nothing is chosen by it.
    """

    def __init__(self, data):
        super().__init__()
        self.images, self.labels = data.test_images, data.test_labels

    def on_epoch_end(self, epoch, logs=None):
        logs["test_error_percent"] = error_percent(self.model.classify(self.images), self.labels)


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
