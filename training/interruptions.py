"""What brings a run through interruptions: when checkpoints are written, and what signals do."""

import contextlib
import math
import os
import signal
import time

import keras

from training.checkpoints import Checkpoint, save_checkpoint
from training.divergence import check_weights
from training.strategy import summed
from utils.errors import Stopped

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Checkpoints(keras.callbacks.Callback):
    """Saves the whole model after every epoch, as often as is asked for within epochs, and when stopped.

    Where epochs are short, not every one: see `Run.epochs_between_checkpoints`.

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
            self.model.set_running_means(begin.means)

    def on_train_batch_end(self, batch, logs=None):
        done = self.done_before + batch + 1
        if done == self.run.steps_per_epoch:
            # Ends the epoch in `fit`, too, if it began in another process.
            self.model.stop_training = self.done_before > 0
        elif self._agreed(self._is_due(done)):
            self._save(Checkpoint(self.epoch, done, self.model.running_means()))

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = False
        end = Checkpoint(epoch + 1)
        last = end.epoch == self.run.config.n_epoch
        if self._agreed(last or end.epoch % self.run.epochs_between_checkpoints == 0):
            self._save(end)

    def _agreed(self, due):
        """Whether all workers save now: the chief's clock decides, and a signal to one of them stops all."""
        self.stopping = self.signals[:1]
        if self.run.workers:
            caught = [self.stopping == [number] for number in STOPPING]
            *caught, due = summed([*caught, due and self.run.is_chief], self.model.distribute_strategy)
            # Not what this worker has caught meanwhile, of which the others know nothing yet.
            self.stopping = [number for number, times in zip(STOPPING, caught, strict=True) if times]
        return bool(self.stopping or due)

    def _is_due(self, done):
        count, unit = self.interval
        if unit == "minute":
            return time.monotonic() - self.saved_at >= 60 * count
        return self.run.train_steps(Checkpoint(self.epoch, done)) - self.saved_step >= count

    def _note_time(self, checkpoint):
        self.saved_at, self.saved_step = time.monotonic(), self.run.train_steps(checkpoint)

    def _save(self, checkpoint):
        check_weights(self.model, self.run)
        if self.run.is_chief:
            save_checkpoint(self.model, self.run.checkpoints, checkpoint, self.run.describe())
        self._note_time(checkpoint)
        if self.stopping:
            raise stopped(self.stopping, self.run)


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
    numbers = [n for n in STOPPING if signal.getsignal(n) != signal.SIG_IGN]
    usual = {number: signal.signal(number, catch) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
