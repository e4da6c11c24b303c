"""Resuming: whatever ended a run, going on with it must give what it would have given without."""

import argparse
import fcntl
import gc
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import chaos
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from models import load_model
from models.adversarial_autoencoder import AdversarialAutoencoder
from models.model_file import read_description, save_model
from training import callbacks, divergence, interruptions
from training.checkpoints import Checkpoint, noted, saved_checkpoints
from training.history import read_history
from training.run import locked, prepare_run
from training.saved_config import read_saved_config
from training.tensorboard import TensorBoard, keep_events
from utils.errors import Stopped, UserError
from utils.files import write_json

# 65 steps to an epoch, in calls of 13.
SMALL = ["--data", "digits", "--n_hidden", "16", "--batch_size", "20", "--n_epoch", "3"]
MODELS = {
    # Stopped and resumed after its noise has ended.
    "supervised": ["--prior", "gaussian_mixture", "--n_z", "2", "--clean_epoch", "1"],
    "semi_supervised": ["--num_samples", "100", "--recipe", "paper", "--keep_prob", "0.9"],
    "unsupervised": ["--prior", "gaussian", "--n_z", "3", "--precision", "bfloat16"],
}


def run(directory, *words):
    return main.main(["main.py", "--run_dir", str(directory), *words])


def resume(directory, *words):
    return run(directory, "--resume", *words)


def prepared(*words):
    """All that happens before TensorFlow is imported."""
    run = prepare_run(main.read_config(["main.py", *words]))
    run.lock.close()
    return run


def at_step(monkeypatch, step, action):
    """Has `action` called with the model once `step` train steps are done."""
    original = divergence.StopOnNaN.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.step) == step:
            action(self.model)
        original(self, batch, logs)

    monkeypatch.setattr(divergence.StopOnNaN, "on_train_batch_end", on_train_batch_end)


def kill_at(monkeypatch, step, number):
    at_step(monkeypatch, step, lambda model: os.kill(os.getpid(), number))


def names(directory):
    return [checkpoint.name for checkpoint in saved_checkpoints(directory / "checkpoints")]


@pytest.fixture(autouse=True, scope="module")
def a_checkpoint_per_epoch():
    """65 steps are enough for one."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("training.checkpoints.least_steps", lambda: 50)
        yield


@pytest.fixture(autouse=True)
def interruptible():
    """Tests in the background of a shell ignore Ctrl-C, and so would the programs that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing has disturbed."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    assert run(directory, *SMALL, *MODELS["supervised"]) == 0
    return directory


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The same run, stopped after 26 steps of its second epoch."""
    directory = tmp_path_factory.mktemp("stopped") / "run"

    def stop(model):
        with pytest.raises(UserError, match="in use by another process"):
            locked(directory)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as monkeypatch:
        at_step(monkeypatch, 65 + 26, stop)
        assert run(directory, *SMALL, *MODELS["supervised"]) == 128 + signal.SIGTERM
    os.close(locked(directory))
    return directory


@pytest.fixture
def begun(stopped, tmp_path):
    """A copy of the stopped run to go on with."""
    return shutil.copytree(stopped, tmp_path / "run")


# Signals


def test_a_stopped_run_has_saved_the_step_it_came_to(stopped):
    assert names(stopped) == ["epoch_00001.keras", "epoch_00001_step_00026.keras"]
    assert int(load_model(stopped / "checkpoints" / "epoch_00001_step_00026.keras").step) == 65 + 26
    assert [row["epoch"] for row in read_history(stopped / "history.csv")] == [1]
    assert not (stopped / "model.keras").exists()


def test_a_run_stopped_in_mid_epoch_ends_as_if_it_had_not_been(whole, begun):
    assert resume(begun) == 0
    assert chaos.differences(whole, begun) == []


def test_noise_ends_after_its_last_epoch(monkeypatch, tmp_path):
    seen = []
    for step in (65, 65 + 13):
        at_step(monkeypatch, step, lambda model: seen.append(model.disturbs))
    assert run(tmp_path / "run", *SMALL, *MODELS["supervised"], "--n_epoch", "2") == 0
    assert seen == [True, False]


def test_a_run_that_is_made_longer_before_its_noise_ends_is_as_a_long_one(monkeypatch, tmp_path):
    monkeypatch.setattr("training.recipes.CLEAN_EPOCHS", 1)
    words = [*SMALL, "--prior", "gaussian_mixture", "--n_z", "2", "--lr_mid_epoch", "1"]
    assert run(tmp_path / "whole", *words) == 0
    assert run(tmp_path / "parts", *words, "--n_epoch", "1") == 0
    assert resume(tmp_path / "parts", "--n_epoch", "3") == 0
    clean_epochs = [read_saved_config(tmp_path / name)[0].clean_epoch for name in ("whole", "parts")]
    assert clean_epochs == [2, 2]
    assert chaos.differences(tmp_path / "whole", tmp_path / "parts") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "epochs", "step", "number", "newest"),
    [
        pytest.param("semi_supervised", 1, 39, signal.SIGINT, "epoch_00000_step_00039.keras", id="mid_epoch"),
        # In the last call of an epoch: the checkpoint is that of its end.
        pytest.param("unsupervised", 2, 65, signal.SIGTERM, "epoch_00001.keras", id="end_of_epoch"),
    ],
)
def test_a_stopped_run_ends_as_if_it_had_not_been(
    tmp_path, monkeypatch, capsys, model, epochs, step, number, newest
):
    words = [*SMALL, "--n_epoch", str(epochs), "--model", model, *MODELS[model]]
    assert run(tmp_path / "whole", *words) == 0
    with monkeypatch.context() as context:
        kill_at(context, step, number)
        assert run(tmp_path / "parts", *words) == 128 + number
    error = capsys.readouterr().err
    assert f"stopped by {number.name}. The last checkpoint is {newest}." in error
    assert f"--resume --run_dir {tmp_path / 'parts'}" in error
    assert names(tmp_path / "parts")[-1] == newest
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert resume(tmp_path / "parts") == 0
    assert chaos.differences(tmp_path / "whole", tmp_path / "parts") == []


@pytest.mark.slow
def test_an_epoch_begun_on_a_cpu_is_ended_on_a_gpu(whole, begun, monkeypatch):
    """There a call takes whole epochs, but the first one only what is left of its epoch."""
    devices = tf.config.list_physical_devices
    pretended = {"GPU": ["first", "second"]}  # two, for which XLA stays off
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind=None: pretended.get(kind) or devices(kind)
    )
    assert resume(begun) == 0
    assert chaos.differences(whole, begun) == []


def test_a_run_killed_after_its_last_epoch_still_gets_its_pictures(whole, tmp_path, capsys):
    directory = shutil.copytree(whole, tmp_path / "run")
    for name in ("model.keras", "metrics.json", "plots/samples.png"):
        (directory / name).unlink()
    assert resume(directory) == 0
    assert chaos.differences(whole, directory) == []
    # Epochs that are done cannot be taken back.
    assert_refused(capsys, directory, "The run is at epoch 3", words=["--n_epoch", "2"])


def test_a_second_signal_acts_as_it_always_does(capfd):
    with pytest.raises(KeyboardInterrupt), interruptions.caught_signals() as caught:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert caught == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)
    assert "a second signal" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.slow
def test_killed_at_a_random_moment(tmp_path, whole):
    """`make chaos` does so twenty times."""
    words = [*SMALL, *MODELS["supervised"], "--checkpoint_every", "26 steps"]
    rng = chaos.random.Random(0)
    kills, problems = chaos.killed(tmp_path / "run", words, 1, [signal.SIGKILL], (1.0, 0.5), rng)
    assert problems == []
    assert kills == 1
    assert chaos.differences(whole, tmp_path / "run") == []


def test_chaos_sees_every_difference(whole, tmp_path):
    """A comparison that finds nothing must be one that can find something."""
    other = shutil.copytree(whole, tmp_path / "run")
    model = load_model(other)
    bias = model.discriminator.trainable_variables[1]
    bias.assign(np.nextafter(bias.numpy(), np.float32(1)))
    model.g_optimizer.iterations.assign_add(1)
    model.save(other / "model.keras")
    (other / "history.csv").write_text((other / "history.csv").read_text().replace("\n3,", "\n4,"))
    metrics = json.loads((other / "metrics.json").read_text())
    write_json(other / "metrics.json", {**metrics, "wall_seconds": 0.0, "prior_distance": 0.0})
    (other / "plots" / "samples.png").unlink()
    writer = tf.summary.create_file_writer(str(other / "tensorboard"))
    with writer.as_default(step=3):
        tf.summary.scalar("d_loss", 1.0)
    writer.close()
    assert chaos.differences(whole, other) == [
        "history.csv differs",
        "metrics.json differs",
        "model.keras:discriminator/stacked/dense/vars/1 differs",
        "model.keras:g_optimizer/vars/0 differs",
        "plots/samples.png is in one run only",
        "tensorboard:d_loss differs",
    ]


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        # At the end of the first call of 13 steps with which there are 20 since the last.
        ((20, "step"), [(1, 39), (2, 0), (2, 26), (2, 52), (3, 0)]),
        # Every call takes 50 seconds here.
        ((2, "minute"), [(1, 52), (2, 0), (2, 39), (3, 0)]),
        (None, [(2, 0), (3, 0)]),
    ],
)
def test_checkpoint_every(monkeypatch, interval, expected):
    """An epoch resumed after its 13th step, and the next one."""
    run = SimpleNamespace(
        config=SimpleNamespace(checkpoint_interval=interval, n_epoch=3),
        begin=Checkpoint(1, 13, {}),
        steps_per_epoch=65,
        epochs_between_checkpoints=1,
        train_steps=lambda checkpoint: 65 * checkpoint.epoch + checkpoint.step,
        checkpoints=None,
        describe=dict,
        workers=None,
        is_chief=True,
    )
    saved = []
    monkeypatch.setattr(interruptions, "check_weights", lambda model, run: None)
    monkeypatch.setattr(interruptions, "save_checkpoint", lambda *words: saved.append(words[2]))
    now = [0]
    monkeypatch.setattr(interruptions.time, "monotonic", lambda: now[0])
    checkpoints = interruptions.Checkpoints(run, [])
    means = {"set_running_means": lambda means: None, "running_means": dict}
    checkpoints.set_model(SimpleNamespace(stop_training=False, **means))
    checkpoints.on_train_begin()
    for epoch, n_calls in ((1, 4), (2, 5)):
        checkpoints.on_epoch_begin(epoch)
        for call in range(n_calls):
            now[0] += 50
            checkpoints.on_train_batch_end(13 * call + 12)
            assert checkpoints.model.stop_training == (epoch == 1 and call == 3)
        checkpoints.on_epoch_end(epoch)
    assert [(checkpoint.epoch, checkpoint.step) for checkpoint in saved] == expected


# Damaged and foreign files


@pytest.fixture
def model_file(tmp_path, make_model):
    path = tmp_path / "small.keras"
    description = {"flags": {"n_z": 2}, "data": {}, "versions": {}}
    save_model(make_model(), path, noted(Checkpoint(2), description))
    return path


def test_a_model_file_says_what_it_is(model_file):
    noted = read_description(model_file)
    assert noted["flags"] == {"n_z": 2}
    assert noted["checkpoint"] == {"epoch": 2, "step": 0, "means": {}}
    assert load_model(model_file).n_z == 2


def test_every_damage_is_found(model_file):
    content = model_file.read_bytes()
    for place in [*range(0, len(content), len(content) // 300), *range(len(content) - 100, len(content))]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        model_file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"checksum|archive"):
            read_description(model_file)
    for length in (0, 10, 1000, len(content) - 1):
        model_file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"checksum|archive"):
            read_description(model_file)
    with pytest.raises(UserError, match=r"small\.keras is damaged"):
        load_model(model_file)


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(begun, whole, capsys):
    damage(begun / "checkpoints" / "epoch_00001_step_00026.keras")
    assert resume(begun) == 0
    out = capsys.readouterr().out
    assert "epoch_00001_step_00026.keras is damaged" in out
    assert "Resuming after epoch 1, of 3 epochs" in out
    assert chaos.differences(whole, begun) == []
    # As TensorBoard itself reads it.
    events = EventAccumulator(str(begun / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    assert [event.step for event in events.Tensors("d_loss")] == [1, 2, 3]
    assert [event.step for event in events.Tensors("samples")] == [3]


def assert_refused(capsys, directory, *parts, words=()):
    """--resume ends with one line that has these parts, and changes nothing."""
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert resume(directory, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    for part in parts:
        assert part in lines[0]
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_without_a_whole_checkpoint_there_is_no_resuming(begun, capsys):
    for path in (begun / "checkpoints").iterdir():
        damage(path)
    assert_refused(capsys, begun, "All checkpoints", "damaged")


def test_a_renamed_checkpoint_is_not_taken_for_another(begun, capsys):
    old = begun / "checkpoints" / "epoch_00001.keras"
    shutil.copy(old, begun / "checkpoints" / "epoch_00002.keras")
    monkey = begun / "checkpoints" / "epoch_00001_step_00026.keras"
    monkey.unlink()
    old.unlink()
    assert_refused(capsys, begun, "All checkpoints")


def rewrite(directory, **changes):
    """Notes other things in the newest checkpoint, with a right checksum."""
    path = directory / "checkpoints" / "epoch_00001_step_00026.keras"
    noted = read_description(path)
    for part, values in changes.items():
        noted[part] = {**noted[part], **values}
    save_model(SimpleNamespace(save=lambda copy: shutil.copy(path, copy)), path, noted)


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(begun, capsys):
    rewrite(begun, flags={"n_hidden": 32, "seed": 7}, data={"name": "mnist", "checksum": "0"})
    differing = ["--n_hidden 32 instead of 16", "--seed 7 instead of 0", "name mnist instead of digits"]
    assert_refused(capsys, begun, "belongs to another run", *differing, "checksum 0 instead of")


def test_a_checkpoint_of_a_newer_version_is_refused(begun, capsys):
    rewrite(begun, flags={"n_heads": 3})
    assert_refused(capsys, begun, "newer version", "--n_heads")


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        ("versions", {"keras": "3.0.0"}, "keras 3.0.0"),
        ("kernels", {"instructions": "avx2 of old"}, "instructions avx2 of old"),
        ("kernels", {"oneDNN": "gone"}, "oneDNN gone"),
    ],
)
def test_other_libraries_and_processors_are_said(begun, capsys, part, values, said):
    rewrite(begun, **{part: values})
    prepared("--resume", "--run_dir", str(begun))
    lines = [line for line in capsys.readouterr().out.splitlines() if "last digits" in line]
    assert len(lines) == 1
    assert said in lines[0]


def test_a_checkpoint_of_an_earlier_version_is_trusted_if_it_has_the_right_steps(begun, capsys):
    newest = begun / "checkpoints" / "epoch_00001_step_00026.keras"
    model = load_model(newest)
    newest.unlink()
    model.save(begun / "checkpoints" / "epoch_00001.keras")  # after 91 steps instead of 65
    assert resume(begun) == 2
    captured = capsys.readouterr()
    assert "does not say which run it belongs to" in captured.out
    assert "holds 91 train steps" in captured.err


def test_a_checkpoint_of_an_earlier_version_must_be_of_the_run(begun, make_model, capsys):
    for path in (begun / "checkpoints").iterdir():
        path.unlink()
    model = make_model(image_shape=(28, 28, 1), n_hidden=24)  # instead of 16
    model.step.assign(65)
    model.save(begun / "checkpoints" / "epoch_00001.keras")
    assert resume(begun) == 2
    assert "is not a checkpoint of this run" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_has_the_defaults_of_later_flags(begun):
    saved = json.loads((begun / "config.json").read_text())
    del saved["flags"]["checkpoint_every"], saved["flags"]["d_noise"]
    write_json(begun / "config.json", saved)
    config, _ = read_saved_config(begun)
    assert config.d_noise == 0.15
    assert config.checkpoint_every == ""
    prepared("--resume", "--run_dir", str(begun))


def test_a_run_of_a_newer_version_is_refused(begun, capsys):
    saved = json.loads((begun / "config.json").read_text())
    write_json(begun / "config.json", {**saved, "flags": {**saved["flags"], "n_heads": 3}})
    assert_refused(capsys, begun, "newer version", "--n_heads")


def test_a_model_of_another_run_is_not_loaded(whole, tmp_path):
    directory = shutil.copytree(whole, tmp_path / "run")
    saved = json.loads((directory / "config.json").read_text())
    write_json(directory / "config.json", {**saved, "flags": {**saved["flags"], "prior": "gaussian"}})
    with pytest.raises(UserError, match="--prior gaussian_mixture instead of gaussian"):
        load_model(directory)
    assert load_model(directory / "model.keras").settings.prior == "gaussian_mixture"


@pytest.mark.parametrize("text", ["", "epoch,d_loss\n2,1.0\n", "epoch,d_loss\n1,one\n"])
def test_a_run_without_its_history_does_not_go_on(begun, capsys, text):
    (begun / "history.csv").write_text(text)
    assert_refused(capsys, begun, "history.csv")


def test_a_run_killed_before_its_first_checkpoint_begins_anew(begun, capsys):
    shutil.rmtree(begun / "checkpoints")
    (begun / "plots" / ".samples.1.tmp.png").write_text("half")
    assert prepared("--resume", "--run_dir", str(begun)).begin == Checkpoint()
    assert "no checkpoint yet" in capsys.readouterr().out
    assert not list(begun.rglob("*.tmp*"))
    assert callbacks.History(begun / "history.csv", 0).rows == []


def test_a_run_killed_before_it_wrote_anything_is_begun_again(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.1.tmp.json").write_text("half")
    prepared("--run_dir", str(tmp_path), *SMALL)
    assert not list(tmp_path.glob("*.tmp*"))
    with pytest.raises(UserError, match="not empty"):
        prepared("--run_dir", str(tmp_path), *SMALL)


# Two processes


def test_a_second_process_is_refused_until_the_first_is_dead(begun):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, fcntl; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
         "print(flush=True); input()", str(begun / ".lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    holder.stdout.readline()
    command = [sys.executable, "main.py", "--resume", "--run_dir", str(begun), "--n_epoch", "9"]
    before = (begun / "config.json").read_bytes()
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert "in use by another process" in second.stderr
    assert second.stderr.count("\n") == 1
    assert (begun / "config.json").read_bytes() == before
    holder.kill()
    holder.communicate()
    with open(begun / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


# A run directory that can no longer be written


def mount(*words):
    if subprocess.run(["mount", *words], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")


def assert_not_written(capsys, directory, reason):
    assert resume(directory) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert f"{directory} can no longer be written" in lines[0]
    assert f"--resume --run_dir {directory}" in lines[0]
    assert reason in lines[0]


def test_a_full_disk(stopped, whole, tmp_path, capsys):
    (tmp_path / "disk").mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path / "disk"))
    try:
        directory = shutil.copytree(stopped, tmp_path / "disk" / "run")
        saved = {name: (directory / "checkpoints" / name).read_bytes() for name in names(directory)}
        free = shutil.disk_usage(directory).free
        (tmp_path / "disk" / "filling").write_bytes(bytes(free - 150_000))
        assert_not_written(capsys, directory, "No space left on device")
        for name, content in saved.items():
            assert (directory / "checkpoints" / name).read_bytes() == content
        assert not list(directory.rglob("*.tmp*"))
        (tmp_path / "disk" / "filling").unlink()
        assert resume(directory) == 0
        assert chaos.differences(whole, directory) == []
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path / "disk")], check=True)


def test_a_limit_of_the_file_size(begun, capsys):
    """As a full disk, for where a file system cannot be mounted."""
    before = names(begun)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        assert_not_written(capsys, begun, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(begun) == before
    assert not list(begun.rglob("*.tmp*"))


def test_a_read_only_directory(begun, capsys):
    mount("--bind", str(begun), str(begun))
    try:
        mount("-o", "remount,ro,bind", str(begun))
        assert_refused(capsys, begun, f"{begun} cannot be written", "Read-only file system")
    finally:
        subprocess.run(["umount", "--lazy", str(begun)], check=True)


def test_a_directory_that_vanishes(begun, monkeypatch, capsys):
    at_step(monkeypatch, 65 + 39, lambda model: shutil.rmtree(begun))
    assert_not_written(capsys, begun, "No such file or directory")
    assert not begun.exists()


def test_what_fails_in_the_step_is_not_blamed_on_the_directory(begun, monkeypatch, capsys):
    step = AdversarialAutoencoder.train_step

    def with_a_large_tensor(model, data):
        step(model, data)
        side = 10**7 + tf.cast(model.step, tf.int32)  # which no graph is folded for
        model.diverged_steps.assign_add(tf.reduce_sum(tf.zeros([side, side], tf.int64)))

    def with_a_mistake(model, data):
        step(model, data)
        tf.debugging.assert_equal(model.step, tf.constant(-1, tf.int64))

    monkeypatch.setattr(AdversarialAutoencoder, "train_step", with_a_large_tensor)
    assert resume(begun) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    for part in ("There is too little memory for this", "--batch_size", "epoch_00001"):
        assert part in line
    monkeypatch.setattr(AdversarialAutoencoder, "train_step", with_a_mistake)
    with pytest.raises(tf.errors.InvalidArgumentError):
        resume(begun)


def test_a_file_in_place_of_a_folder(begun, capsys):
    shutil.rmtree(begun / "plots")
    (begun / "plots").touch()
    assert resume(begun) == 2
    error = capsys.readouterr().err
    assert f"{begun} cannot be written" in error
    assert "File exists" in error
    assert error.count("\n") == 1


def test_tensorboard_loses_its_file(tmp_path, make_model, batch):
    tensorboard = TensorBoard(tmp_path / "tensorboard", batch[0], 0)
    tensorboard.set_model(make_model())
    tensorboard.on_epoch_end(0, {"d_loss": 1.4})
    shutil.rmtree(tmp_path / "tensorboard")
    with pytest.raises(OSError, match="the file of TensorBoard"):
        tensorboard.on_epoch_end(1, {"d_loss": 1.4})
    tensorboard.writer.close()


# TensorBoard


def test_tensorboard_forgets_what_will_be_written_again(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    picture = np.zeros((1, 2, 2, 3), np.uint8)
    for step in (1, 2, 3):
        with writer.as_default(step=step):
            tf.summary.scalar("d_loss", step)
            tf.summary.image("preview/samples", picture)
            if step > 1:
                tf.summary.image("samples", picture)  # of a training that ended here
    writer.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-7])  # the last record is torn
    keep_events(tmp_path, 2)
    kept = {tag: [step for step, _ in values] for tag, values in chaos.events(tmp_path).items()}
    assert kept == {"tensorboard:d_loss": [1, 2], "tensorboard:preview/samples": [1, 2]}


def test_a_run_of_an_earlier_version_gains_columns(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,d_loss\n1,1.5\n2,1.25\n")
    callbacks.History(tmp_path / "history.csv", 1).on_epoch_end(1, {"d_loss": 1.0, "new": 2.0})
    assert (tmp_path / "history.csv").read_text() == "epoch,d_loss,new\n1,1.5,nan\n2,1.0,2.0\n"


# NaN and collapse


def test_nan_stops_within_the_epoch_with_one_line(begun, monkeypatch, capsys):
    before = names(begun)

    def spoil(model):
        model.d_optimizer.learning_rate = math.inf

    at_step(monkeypatch, 65 + 52, spoil)
    assert resume(begun) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    for part in [
        "d_loss",
        "NaN or infinite in epoch 2, step 53, ",
        "ae 0.001, d inf, g 0.001",
        before[-1],
    ]:
        assert part in lines[0]
    assert names(begun) == before
    assert len(read_history(begun / "history.csv")) == 1


def test_a_nan_that_no_loss_shows_yet_is_not_saved(make_model, tmp_path):
    model = make_model()
    run = SimpleNamespace(steps_per_epoch=10, last_good="")
    divergence.check_weights(model, run)
    moments = model.g_optimizer.variables[2]
    moments.assign(tf.fill(moments.shape, math.nan))
    with pytest.raises(UserError, match=f"{moments.path} became NaN"):
        divergence.check_weights(model, run)


def rows(count, real=0.6, fake=0.6, g_loss=0.8, d="d"):
    figures = {f"{d}_accuracy_real": real, f"{d}_accuracy_fake": fake, "g_loss": g_loss}
    return [{"epoch": epoch + 1, **figures} for epoch in range(count)]


@pytest.mark.parametrize(
    "bad", [{"real": 0.99, "fake": 1.0}, {"g_loss": 3.0}, {"d": "d_y", "real": 1, "fake": 1}]
)
def test_collapse_is_seen_when_it_lasts(bad):
    name = {"d": bad.get("d", "d")}
    assert not divergence.has_collapsed(rows(30, **name))
    assert not divergence.has_collapsed(rows(9, **bad))
    assert divergence.has_collapsed(rows(20, **name) + rows(10, **bad))
    assert not divergence.has_collapsed(rows(20, **bad) + rows(1, **name))


def test_collapse_is_said_once_in_a_run(capsys):
    history = SimpleNamespace(rows=rows(9, g_loss=5.0))
    warning = divergence.CollapseWarning(history)
    for epoch in range(9, 12):
        history.rows = rows(epoch + 1, g_loss=5.0)
        warning.on_epoch_end(epoch)
    assert capsys.readouterr().out.count("WARNING") == 1
    resumed = divergence.CollapseWarning(history)
    resumed.on_epoch_end(12)
    assert capsys.readouterr().out == ""


# Long


def resident_bytes(process="self"):
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()


def test_saving_leaves_no_memory(make_model, tmp_path):
    model, sizes = make_model(), []
    for count in (5, 15, 15):
        for _ in range(count):
            save_model(model, tmp_path / "model.keras", {})
        gc.collect()
        sizes.append(resident_bytes())
    # Keras on its own leaves 0.2 MB with each. What other tests left behind may grow by as much once.
    assert min(np.diff(sizes)) < 1.5e6, sizes


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path):
    """200 epochs: at the end within 5 % of the resident memory after the fifth epoch."""
    words = ["--data", "digits", "--n_hidden", "16", "--n_epoch", "200", "--n_z", "2"]
    training = chaos.Training(tmp_path / "run", [*words, "--prior", "gaussian_mixture"])
    sizes = {}
    for epoch in (6, 200):
        training.wait_for_epoch(epoch)
        sizes[epoch] = resident_bytes(training.process.pid)
    assert training.wait() == 0, training.output
    assert sizes[200] < 1.05 * sizes[6], sizes


@pytest.mark.slow
def test_chaos(tmp_path):
    options = argparse.Namespace(runs=3, kills=4, epochs=8, jobs=2, seed=1)
    equal, kills = chaos.chaos(tmp_path, options)
    assert equal == 3
    assert kills >= 9


def test_short_epochs_share_a_checkpoint(tmp_path, monkeypatch):
    run = prepared("--data=digits", "--batch_size=128", "--n_epoch=12", f"--run_dir={tmp_path / 'run'}")
    saved, signals = [], []
    monkeypatch.setattr(interruptions.Checkpoints, "_save", lambda self, end: saved.append(end.epoch))
    checkpoints = interruptions.Checkpoints(run, signals)
    checkpoints.set_model(SimpleNamespace(stop_training=False))
    for epoch in range(12):
        checkpoints.on_epoch_end(epoch)
    assert run.steps_per_epoch == 10
    assert saved == [5, 10, 12]
    signals.append(signal.SIGTERM)
    checkpoints.on_epoch_end(6)
    assert saved[-1] == 7


def test_a_signal_that_comes_while_workers_agree_waits_for_the_next_time(monkeypatch):
    """Else this worker would stop, and the others would wait for it."""
    saved, signals = [], []
    run = SimpleNamespace(
        config=SimpleNamespace(checkpoint_interval=None, n_epoch=12),
        epochs_between_checkpoints=5,
        train_steps=lambda checkpoint: 10 * checkpoint.epoch,
        checkpoints=None,
        describe=dict,
        workers="others",
        is_chief=True,
        last_good="",
        resume_command="",
    )

    def summed(counts, strategy):
        signals.append(signal.SIGTERM)
        return counts

    monkeypatch.setattr(interruptions, "summed", summed)
    monkeypatch.setattr(interruptions, "check_weights", lambda model, run: None)
    monkeypatch.setattr(interruptions, "save_checkpoint", lambda *words: saved.append(words[2]))
    checkpoints = interruptions.Checkpoints(run, signals)
    checkpoints.set_model(SimpleNamespace(stop_training=False, distribute_strategy=None))
    checkpoints.on_epoch_end(3)
    assert saved == []
    with pytest.raises(Stopped, match="SIGTERM"):
        checkpoints.on_epoch_end(5)
    assert saved == [Checkpoint(6)]
