"""What happens between epochs: learning rates, figures, history, previews."""

import keras
import numpy as np

from evaluation import plots
from evaluation.figures import (
    axes_limit,
    component_accuracy,
    decode_samples,
    error_percent,
    evenly,
    fixed_codes,
    labels_obeyed,
    labels_of_clusters,
    labels_shown,
)
from training.history import read_history, write_history

PREVIEW_EVERY = 5  # checkpoints
N_SWAPPED_AN_EPOCH = 2000  # images decoded of validation images' styles, of all labels together
N_PREVIEWED = 2000  # test images whose codes TensorBoard and the previews show


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
            logs[f"{phase}_learning_rate"] = float(rate.numpy())


class CleanEpochs(keras.callbacks.Callback):
    """Ends noise on the input and dropout after `clean_epoch` epochs, also in a run that is resumed later."""

    def __init__(self, clean_epoch):
        super().__init__()
        self.clean_epoch = clean_epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.model.disturb(epoch < self.clean_epoch)


class FreshPlayers(keras.callbacks.Callback):
    """Lets D and G begin each epoch level; one that is resumed in its middle goes on as it was."""

    def __init__(self, steps_per_epoch):
        super().__init__()
        self.steps_per_epoch = steps_per_epoch

    def on_epoch_begin(self, epoch, logs=None):
        if int(self.model.step.numpy()) % self.steps_per_epoch == 0:
            self.model.forget_losses()


class History(keras.callbacks.Callback):
    """Keeps history.csv: one row per finished epoch.

    Args:
        path: of the file; the rows of the `first_epoch` finished epochs that it holds are kept.
        writes: whether the file is written, or, as by workers beside the chief, only read.
    """

    def __init__(self, path, first_epoch, writes=True):
        super().__init__()
        self.path = path
        self.writes = writes
        self.rows = read_history(path)[:first_epoch] if first_epoch else []

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}})
        if self.writes:
            write_history(self.path, self.rows)


class LabelFigures(keras.callbacks.Callback):
    """Logs, after every epoch, what can be said about labels on the validation split.

    That is the share of its images that the model gives a wrong label, or of codes in the part of the prior
    that is their label's, and, with a reader, how often styles decoded with another label show it.

    Args:
        data: an `ImageData`.
        reader: a `LabelReader`, or None.
    """

    def __init__(self, data, reader):
        super().__init__()
        self.images, self.labels = data.validation_images, data.validation_labels
        self.reader = reader

    def on_epoch_end(self, epoch, logs=None):
        probabilities = None
        if hasattr(self.model, "classify"):
            probabilities = self.model.classify(self.images)
            clusters = labels_of_clusters(self.model, probabilities, self.labels)
            logs["val_error_percent"] = error_percent(probabilities, self.labels, clusters)
        if self.model.labels_have_places and not self.model.finds_clusters:
            logs["val_component_accuracy"] = component_accuracy(
                self.model.prior, self.model.encode(self.images), self.labels
            )
        if self.reader:
            shown = labels_shown(self.model, probabilities, self.labels)
            count = max(N_SWAPPED_AN_EPOCH // len(shown), 1)
            styles = self.model.encode(evenly(self.images, count))
            shares = labels_obeyed(self.model, styles, shown, self.reader)
            logs["val_label_swap_accuracy"] = float(np.mean(shares))


class Previews(keras.callbacks.Callback):
    """Draws the same samples of the prior, and the coding space, every few epochs.

    Args:
        directory: plots/previews.
        data: an `ImageData`.
        tensorboard: the `TensorBoard` callback that shows the pictures too.
        every: so many epochs, and after the first.
    """

    def __init__(self, directory, data, tensorboard, every):
        super().__init__()
        self.directory = directory
        self.data = data
        self.tensorboard = tensorboard
        self.every = every

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every and epoch != 0:
            return
        self.directory.mkdir(exist_ok=True)
        title = f"after epoch {epoch + 1}"
        path = self.directory / f"samples_{epoch + 1:05d}.png"
        images = decode_samples(self.model, fixed_codes(self.model), self.data)
        plots.save_image_grid(path, images, 10, f"Samples {title}", self.data.note)
        self.tensorboard.add_picture("preview/samples", path, epoch + 1)
        if self.model.n_z == 2:
            path = self.directory / f"codes_{epoch + 1:05d}.png"
            codes = self.model.encode(self.data.test_images[:N_PREVIEWED])
            labels = self.data.test_labels[:N_PREVIEWED]
            limit, names = axes_limit(self.model), self.data.label_names
            plots.save_codes(path, codes, labels, limit, f"Codes {title}", self.data.note, names=names)
            self.tensorboard.add_picture("preview/codes", path, epoch + 1)
