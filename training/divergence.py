"""Trainings that go wrong: NaN ends a run, and a discriminator that has won is named."""

import math

import keras
import tensorflow as tf

from utils.errors import UserError

# When D has won: its accuracies, or G's loss as a multiple of its equilibrium, over so many epochs.
PINNED = 0.98
FAR = 4
LONG = 10


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
    done, diverged = int(model.step.numpy()), int(model.diverged_steps.numpy())
    # What no loss has shown yet is of the last step.
    epoch, step = divmod(min(done - diverged, done - 1), run.steps_per_epoch)
    rates = [
        f"{phase} {float(getattr(model, f'{phase}_optimizer').learning_rate.numpy()):g}"
        for phase in model.phases
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
