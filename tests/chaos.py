"""Kills small trainings again and again, resumes them, and compares them with one that was left alone.

`make chaos` prints the tally; the fast tests do it once. Every kill is a real signal to a real process, at a
random moment of the start, the training, or the work after it.
"""

import argparse
import concurrent.futures
import io
import json
import math
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import h5py

from main import start_tensorflow
from training.checkpoints import saved_checkpoints
from training.history import read_history

ROOT = Path(__file__).parents[1]
# Batches of 20 give 65 steps to an epoch, in calls of 13, so that there are checkpoints within epochs.
COMMON = ["--data", "digits", "--n_hidden", "64", "--batch_size", "20", "--checkpoint_every", "26 steps"]
TRAININGS = {
    "supervised": ["--prior", "gaussian_mixture", "--n_z", "2"],
    "semi_supervised": ["--num_samples", "100", "--recipe", "paper", "--keep_prob", "0.9"],
    "streamed": ["--prior", "gaussian", "--n_z", "3", "--shift", "1", "--stream"],
    "unsupervised": ["--prior", "swiss_roll", "--n_z", "2", "--precision", "bfloat16"],
    "conditional": [
        *("--network", "conv", "--conv_widths", "4,8", "--batch_norm", "--shift", "1", "--balance"),
        *("--prior", "truncated_gaussian", "--n_z", "3", "--lr_schedule", "plateau", "--lr_patience", "1"),
    ],
}
MODELS = {"streamed": "conditional"}  # of the trainings with other names
TIMINGS = {"train_images_per_second", "wall_seconds"}


class Training:
    """One process of `main.py` on a run directory, resumed where there is something to resume.

    Attributes:
        output: what it has printed.
    """

    def __init__(self, directory, words):
        words = ["--resume"] if (directory / "config.json").exists() else words
        command = [sys.executable, "-u", "main.py", "--run_dir", str(directory), *words]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.output = ""
        self.epoch = 0
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        with self.process.stdout as lines:
            for line in lines:
                self.output += line
                if line.startswith("Results: "):
                    self._reach(1)
                elif match := re.match(r"epoch (\d+)/", line):  # it has ended
                    self._reach(int(match[1]) + 1)
        self._reach(math.inf)

    def _reach(self, epoch):
        with self.news:
            self.epoch = max(self.epoch, epoch)  # the results are named again at the end
            self.news.notify()

    def wait_for_epoch(self, epoch):
        """Waits until this epoch, from 1, or a later one has begun, or the process has ended."""
        with self.news:
            self.news.wait_for(lambda: self.epoch >= epoch)

    def wait(self):
        """The exit status, once the process has ended and its output is complete."""
        self.reader.join()
        return self.process.wait()


def left_alone(directory, words, epochs):
    """Trains without a kill; returns the seconds before the first epoch, and those of each on average."""
    start = time.monotonic()
    training = Training(directory, words)
    training.wait_for_epoch(1)
    began = time.monotonic()
    if training.wait():
        raise RuntimeError(training.output)
    return began - start, (time.monotonic() - began) / epochs


def killed(directory, words, epochs, numbers, seconds, rng):
    """Trains to the end, with each of the signals `numbers` sent once before that.

    A fifth of the signals come before the first epoch; the others spread over the epochs.

    Args:
        seconds: as `left_alone` returns them.

    Returns:
        number of processes that a signal ended, and texts about what was wrong.
    """
    kills, problems = 0, []
    for index, number in enumerate([*numbers, None]):
        saved = saved_checkpoints(directory / "checkpoints") if (directory / "checkpoints").exists() else []
        rows = read_history(directory / "history.csv") if (directory / "history.csv").exists() else []
        training = Training(directory, words)
        if number is not None:
            if rng.random() < 0.2:
                time.sleep(rng.uniform(0, seconds[0]))
            else:
                training.wait_for_epoch(1 + int(epochs * (index + rng.random()) / len(numbers)))
                time.sleep(rng.uniform(0, 1.5 * seconds[1]))
            training.process.send_signal(number)
        status = training.wait()
        kills += status != 0
        # Before and after the training, SIGTERM ends the process as it ends any other.
        if status and (number is None or status not in (-number, 128 + number)):
            problems.append(f"status {status} after signal {number}: {training.output[-500:]}")
        if match := re.search(r"^Resuming after (epoch \d+(, step \d+ of the next)?)", training.output, re.M):
            if match[1] != str(saved[-1]):
                problems.append(f"resumed after {match[1]} though there was {saved[-1]}")
            # The row of an epoch is written just before its checkpoint.
            if len(rows) > saved[-1].epoch + 1:
                problems.append(f"{len(rows)} epochs were done, but the last checkpoint is {saved[-1]}")
        elif saved and "\nepoch " in training.output:
            problems.append(f"began anew though there was {saved[-1]}")
    return kills, problems


def differences(reference, directory):
    """Texts about all that a run left otherwise than the reference."""
    wrong = []
    ours, theirs = (contents(path) for path in (directory, reference))
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            wrong.append(f"{name} {'differs' if name in ours and name in theirs else 'is in one run only'}")
    return wrong


def contents(directory):
    """Everything that must not depend on kills, by name: bytes, or lists for TensorBoard's tags."""
    found = {}
    last = directory / "checkpoints" / saved_checkpoints(directory / "checkpoints")[-1].name
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if path in (directory / "model.keras", last):
            found |= {f"{name}:{key}": value for key, value in arrays(path).items()}
        elif name == "metrics.json":
            metrics = json.loads(path.read_text())
            found[name] = {key: value for key, value in metrics.items() if key not in TIMINGS}
        elif name == "history.csv" or path.suffix == ".png" or ".tmp" in path.name:
            found[name] = path.read_bytes()
    return found | events(directory / "tensorboard")


def arrays(path):
    """Weights, optimizers' states and counts in a .keras file: the bytes of each by its place."""
    found = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:

        def note(name, item):
            if isinstance(item, h5py.Dataset):
                found[name] = (item.dtype.str, item.shape, item[()].tobytes())

        file.visititems(note)
    return found


def events(directory):
    """What TensorBoard's files hold of each tag: the steps and values, by their steps.

    The files of several processes are in no order of their own: a resumed run writes the old ones anew.
    """
    start_tensorflow()
    import tensorflow as tf

    found = {}
    for path in directory.glob("events.*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                found.setdefault(f"tensorboard:{value.tag}", []).append(
                    (event.step, value.tensor.SerializeToString())
                )
    return {tag: sorted(values) for tag, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=4, help="signals sent to each run")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        equal, kills = chaos(Path(folder), options)
    print(f"{equal} of {options.runs} runs equal to the reference, after {kills} kills.")
    return 0 if equal == options.runs else 1


def chaos(folder, options):
    """Returns the number of runs that were equal to their reference, and that of kills."""

    def prepare(model):
        words = ["--model", MODELS.get(model, model), *TRAININGS[model], *COMMON]
        words += ["--n_epoch", str(options.epochs)]
        return words, left_alone(folder / model, words, options.epochs)

    def one(index):
        rng = random.Random(f"{options.seed} {index}")
        model = list(TRAININGS)[index % len(TRAININGS)]
        words, seconds = references[model]
        numbers = rng.choices([signal.SIGKILL, signal.SIGTERM], weights=[3, 1], k=options.kills)
        kills, problems = killed(folder / f"run_{index}", words, options.epochs, numbers, seconds, rng)
        problems += differences(folder / model, folder / f"run_{index}")
        print(f"run {index + 1}, {model}: {kills} kills, {'; '.join(problems) or 'equal'}", flush=True)
        return kills, not problems

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        models = list(TRAININGS)[: options.runs]
        references = dict(zip(models, pool.map(prepare, models), strict=True))
        results = list(pool.map(one, range(options.runs)))
    return sum(equal for _, equal in results), sum(kills for kills, _ in results)


if __name__ == "__main__":
    sys.exit(main())
