"""Trains a model on a prepared run, and has it measured and drawn."""

import contextlib
import dataclasses
import functools
import math
import re
import shlex
import sys
import time

import tensorflow as tf

from data.pipeline import evaluation_batches, read_batches, training_batches
from evaluation import report
from evaluation.figures import evaluate, predicted_labels
from evaluation.page import Page, write_page
from evaluation.pictures import Sitting, draw_pictures
from models import MODELS, load_model
from models.model_file import save_model
from models.optimizers import FusedAdam, FusedSGD
from models.precision import exact_products
from models.settings import ModelSettings
from training import callbacks
from training.checkpoints import Checkpoint, noted
from training.commands import commands, named_flags
from training.divergence import CollapseWarning, StopOnNaN
from training.interruptions import Checkpoints, caught_signals, stopped
from training.label_reader import label_reader
from training.own_parts import check_own_parts, own_parts
from training.progress import EpochLines
from training.projector import write_projector
from training.saved_config import saved_figures
from training.settings import DECIDE_NOTHING
from training.strategy import make_strategy, shared_out
from training.tensorboard import TensorBoard
from utils import registry
from utils.errors import Stopped, UserError, first_line
from utils.files import write_json


def train_and_evaluate(run):
    """Runs everything that comes after the data: training, model.keras, metrics.json and plots/.

    Args:
        run: a `Run`.

    Raises:
        UserError: if the training diverges, memory runs out, or the run directory can no longer be written.
        Stopped: if SIGTERM or Ctrl-C came during the training; a checkpoint is saved.
    """
    try:
        with _together(run):
            _train_and_evaluate(run)
    except BrokenPipeError:  # of the console
        raise
    except (OSError, tf.errors.OpError) as error:
        if run.data.stored and run.data.train_images.shards.failure:
            raise run.data.train_images.shards.failure from None
        if "OOM when allocating" in str(error):
            raise UserError(
                "There is too little memory for this: choose a smaller --batch_size, --n_hidden or "
                f"--conv_widths. {run.last_good}"
            ) from None
        if first_line(error) == "Graph execution error:":  # in the train step, which writes no files
            raise
        reason = re.sub(r"^{{.*}} ", "", first_line(error))  # TensorFlow begins with its own innards
        raise UserError(
            f"{run.directory} can no longer be written: {reason}. {run.last_good} When that is mended, go on "
            f"with {run.resume_command}"
        ) from None


@contextlib.contextmanager
def _together(run):
    """Watches over the other workers, where there are any, and takes leave of them."""
    if run.workers is None:
        yield
        return
    go_on = f"Go on by starting all workers again with --resume --run_dir {shlex.quote(str(run.directory))}."
    run.workers.watch(lambda: f"{run.last_good} {go_on}")
    try:
        yield
    except BaseException as error:
        if isinstance(error, tf.errors.OpError) and "Collective" in str(error):
            run.workers.end_because(error)
        run.workers.leave(None if isinstance(error, Stopped) else first_line(error))
        raise
    run.workers.leave()


def _train_and_evaluate(run):
    config, data, begin = run.config, run.data, run.begin
    steps = run.steps_per_epoch
    strategy = make_strategy(config, run.workers)
    if run.workers and own_parts(config):
        check_own_parts(config)  # which starts TensorFlow's devices, and so comes after the strategy
    with strategy.scope():
        model = _prepared_model(run, strategy)
    if run.is_chief:
        print(
            f"{config.model} on {data.name} ({data.source}): {len(data.train_images)} train, "
            f"{len(data.validation_images)} validation, {len(data.test_images)} test images\n"
            f"Results: {run.directory}" + (f"\n{_resumption(begin, config.n_epoch)}" if run.is_begun else ""),
            flush=True,
        )
    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        cluster = run.workers and run.workers.cluster
        who = f"{cluster.name(cluster.index)}, {cluster.size} workers" if cluster else "mirrored"
        print(
            f"{who}: {replicas} replicas, {config.batch_size // replicas} images each in a step", flush=True
        )
    history = callbacks.History(run.directory / "history.csv", begin.epoch, writes=run.is_chief)
    progress = EpochLines(config.n_epoch, config.batch_size, quiet=sys.stdout.isatty())
    reader = tensorboard = None
    if run.is_chief:
        reader = label_reader(data) if model.decodes_labels else None
        tensorboard = TensorBoard(
            run.directory / "tensorboard", data.test_images[: callbacks.N_PREVIEWED], begin.epoch
        )
    start = time.perf_counter()
    with caught_signals() as signals:
        model.fit(
            shared_out(
                training_batches(
                    len(data.train_images),
                    config.batch_size,
                    config.seed,
                    run.train_steps(begin),
                    run.labelled,
                    apart=config.learns_labels,
                ),
                strategy,
                read=functools.partial(read_batches, images=data.train_images, labels=run.shown_labels)
                if data.stored
                else None,
            ),
            epochs=config.n_epoch,
            initial_epoch=begin.epoch,
            steps_per_epoch=steps,
            validation_data=evaluation_batches(data.validation_images, data.validation_labels),
            shuffle=False,  # `training_batches` does it
            verbose=1 if sys.stdout.isatty() and run.is_chief else 0,
            callbacks=_callbacks(run, history, progress, reader, tensorboard, signals),
        )
    if signals:
        raise stopped(signals, run)
    if not run.is_chief:
        print(f"{who}: {config.n_epoch} epochs are done", flush=True)
        return
    speed = {
        "train_images_per_second": progress.images_per_second,
        "wall_seconds": time.perf_counter() - start,
    }
    if begin.epoch == config.n_epoch:  # nothing was trained
        figures = saved_figures(run.directory)
        speed = {name: figures[name] for name in speed} if speed.keys() <= figures.keys() else {}

    end = Checkpoint(config.n_epoch)
    save_model(model, run.directory / "model.keras", noted(end, run.describe()))
    n_likelihood = config.likelihood_samples if config.likelihood else 0
    with exact_products():
        codes = model.encode(data.test_images)
        figures = evaluate(model, data, codes, reader, n_likelihood)
    metrics = {
        **figures,
        **({} if run.labelled is None else {"labelled_images": len(run.labelled)}),
        "epochs": config.n_epoch,
        **speed,
        "data": data.describe(),
    }
    write_json(run.directory / "metrics.json", metrics)
    sitting = Sitting(config, data, model, run.plots, codes, history.rows)
    draw_pictures(sitting)
    title = f"{run.directory.name}: {config.model}, {sitting.name}"
    names = data.label_names
    write_page(run.directory, Page(title, data.note, metrics, names, named_flags(config), commands(run)))
    tensorboard.add_scalars(figures, config.n_epoch)
    flags = dataclasses.asdict(config).items()
    tensorboard.add_flags({name: value for name, value in flags if name not in DECIDE_NOTHING})
    predictions = None
    if hasattr(model, "classify"):
        predictions = predicted_labels(sitting.probabilities, sitting.cluster_labels)
    write_projector(tensorboard.directory, data, codes, predictions)
    for picture in sorted(run.plots.glob("*.png")):
        tensorboard.add_picture(picture.stem, picture, config.n_epoch)
    tensorboard.writer.close()
    print("\n".join([*report.summary(metrics), *report.where_to_look(run.directory)]), flush=True)


def _prepared_model(run, strategy):
    """The model, new or of the checkpoint where the run goes on, on the devices of the strategy in scope."""
    config, data, begin = run.config, run.data, run.begin
    model = load_model(run.checkpoints / begin.name) if run.is_begun else build_model(config, data)
    if int(model.step.numpy()) != run.train_steps(begin):
        raise UserError(
            f"{begin.name} holds {int(model.step.numpy())} train steps, but {begin} of this run comes after "
            f"{run.train_steps(begin)}."
        )
    settings = ModelSettings(**config.model_settings).effective
    expected = data.image_shape, config.n_labels(data.n_classes), data.has_attributes, settings
    if type(model) is not registry.load(MODELS, config.model) or model.made_with != expected:
        raise UserError(f"{begin.name} is not a checkpoint of this run, but of one with other flags or data.")
    model.compile(
        jit_compile=strategy.num_replicas_in_sync == 1 and uses_xla(config),
        steps_per_execution=steps_per_call(config, run.steps_per_epoch, begin.step),
        **{f"{phase}_optimizer": getattr(model, f"{phase}_optimizer") for phase in model.phases},
    )
    if not data.stored:
        model.hold(data.train_images, run.shown_labels)
    return model


def _callbacks(run, history, progress, reader, tensorboard, signals):
    """What happens in a training, in this order; what only writes, on the chief alone."""
    config, data = run.config, run.data
    every = [
        callbacks.LearningRates(config.learning_rates, history),
        *([callbacks.CleanEpochs(config.clean_epoch)] if config.clean_epoch else []),
        *([callbacks.FreshPlayers(run.steps_per_epoch)] if config.balance else []),
    ]
    last = Checkpoints(run, signals)
    if not run.is_chief:
        return [*every, StopOnNaN(run), history, last]
    return [
        *every,
        callbacks.LabelFigures(data, reader),
        StopOnNaN(run),
        history,
        CollapseWarning(history),
        progress,
        tensorboard,
        callbacks.Previews(
            run.plots / "previews",
            data,
            tensorboard,
            callbacks.PREVIEW_EVERY * run.epochs_between_checkpoints,
        ),
        last,
    ]


def _resumption(begin, n_epochs):
    """Where a resumed run goes on, as a line."""
    if begin.epoch == n_epochs:
        return f"The training is complete, {n_epochs} epochs: the model is measured and drawn again."
    return f"Resuming after {begin}, of {n_epochs} epochs"


def build_model(config, data):
    """The untrained, compiled model of a configuration."""
    model = registry.load(MODELS, config.model)(**model_arguments(config, data))

    optimizers = {}
    for phase in model.phases:  # the schedule sets the learning rates
        name = f"{phase}_optimizer"
        if config.optimizer == "adam":
            optimizers[name] = FusedAdam(epsilon=1e-8, name=name)
        else:
            momentum = config.gan_momentum if phase in ("d", "g") else config.momentum
            optimizers[name] = FusedSGD(momentum=momentum, name=name)
    model.compile(**optimizers)
    return model


def model_arguments(config, data):
    """What the model's constructor takes, from a configuration and its data."""
    return {
        "image_shape": data.image_shape,
        "n_classes": data.n_classes,
        "attributes": data.has_attributes,
        **config.model_settings,
    }


def uses_xla(config):
    """Whether XLA compiles the train step: it pays on a GPU and costs on a CPU."""
    if config.jit_compile == "auto":
        return len(tf.config.list_physical_devices("GPU")) == 1
    return config.jit_compile == "on"


def steps_per_call(config, steps, done=0):
    """How many train steps a call of the train function takes, so that calls end where the epoch does.

    On a GPU, where steps are so short that calls show, as many as possible, unless checkpoints within the
    epoch are asked for; otherwise up to 20: progress shows and signals are obeyed between calls.

    Args:
        steps: of an epoch.
        done: steps of the first epoch that another process has taken.
    """
    shared = math.gcd(steps, done)
    if tf.config.list_physical_devices("GPU") and not config.checkpoint_every:
        return shared
    return max(count for count in range(1, 21) if shared % count == 0)
