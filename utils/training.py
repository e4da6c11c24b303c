"""Trains a model on a prepared run, measures it, and draws its pictures."""

import math
import re
import sys
import time

import numpy as np
import tensorflow as tf

from data.pipeline import evaluation_batches, training_batches
from models import MODELS, load_model
from models.fused_optimizers import FusedAdam, FusedSGD
from training.label_reader import label_reader
from utils import animations, callbacks, plots, registry
from utils.checkpoints import Checkpoint, save_model
from utils.errors import UserError, first_line
from utils.evaluation import decode_samples, evaluate, evenly
from utils.files import write_json

N_SAMPLES = 100
MANIFOLD_SIDE = 20


def train_and_evaluate(run):
    """Runs everything that comes after the data: training, model.keras, metrics.json and plots/.

    Args:
        run: a `Run`.

    Raises:
        UserError: if the training diverges, or the run directory can no longer be written.
        Stopped: if SIGTERM or Ctrl-C came during the training; a checkpoint is saved.
    """
    try:
        _train_and_evaluate(run)
    except BrokenPipeError:  # of the console
        raise
    except (OSError, tf.errors.OpError) as error:
        reason = re.sub(r"^{{.*}} ", "", first_line(error))  # TensorFlow begins with its own innards
        raise UserError(
            f"{run.directory} can no longer be written: {reason}. {run.last_good} When that is mended, go on "
            f"with {run.resume_command}"
        ) from None


def _train_and_evaluate(run):
    config, data, begin = run.config, run.data, run.begin
    steps = run.steps_per_epoch
    resumed = run.train_steps(begin) > 0
    model = load_model(run.checkpoints / begin.name) if resumed else build_model(config, data)
    if int(model.step) != run.train_steps(begin):
        raise UserError(
            f"{begin.name} holds {int(model.step)} train steps, but {begin} of this run comes after "
            f"{run.train_steps(begin)}."
        )
    is_model_of_run = (
        isinstance(model, registry.load(MODELS, config.model))
        and model_arguments(config, data).items() <= model.get_config().items()
    )
    if not is_model_of_run:
        raise UserError(f"{begin.name} is not a checkpoint of this run, but of one with other flags or data.")
    model.compile(
        jit_compile=uses_xla(config),
        steps_per_execution=steps_per_call(config, steps, begin.step),
        **{f"{phase}_optimizer": getattr(model, f"{phase}_optimizer") for phase in model.phases},
    )
    model.hold(data.train_images, data.train_labels)
    print(
        f"{config.model} on {data.name} ({data.source}): {len(data.train_images)} train, "
        f"{len(data.validation_images)} validation, {len(data.test_images)} test images\n"
        f"Results: {run.directory}"
        + (f"\nResuming after {begin}, of {config.n_epoch} epochs" if resumed else ""),
        flush=True,
    )
    reader = label_reader(data) if model.decodes_labels else None
    # The codes of the previews and of samples.png: the same ones every time.
    fixed_codes, _ = model.sample_prior(N_SAMPLES, seed=0)
    limit = axes_limit(model)
    tensorboard = callbacks.TensorBoard(
        run.directory / "tensorboard", data.test_images[: callbacks.N_PREVIEWED], begin.epoch
    )
    history = callbacks.History(run.directory / "history.csv", begin.epoch)
    start = time.perf_counter()
    with callbacks.caught_signals() as signals:
        model.fit(
            training_batches(
                len(data.train_images), config.batch_size, config.seed, run.train_steps(begin), run.labelled
            ),
            epochs=config.n_epoch,
            initial_epoch=begin.epoch,
            steps_per_epoch=steps,
            validation_data=evaluation_batches(data.validation_images, data.validation_labels),
            shuffle=False,  # `training_batches` does it
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                callbacks.LearningRates(config.learning_rates, history),
                *([callbacks.FreshPlayers(steps)] if config.balance else []),
                callbacks.LabelFigures(data, reader),
                callbacks.StopOnNaN(run),
                history,
                callbacks.CollapseWarning(history),
                tensorboard,
                callbacks.Previews(run.plots / "previews", data, fixed_codes, limit, tensorboard),
                callbacks.Checkpoints(run, signals),
            ],
        )
    if signals:
        raise callbacks.stopped(signals, run)
    seconds = time.perf_counter() - start

    end = Checkpoint(config.n_epoch)
    save_model(model, run.directory / "model.keras", end, run.describe())
    codes = model.encode(data.test_images)
    trained = (run.train_steps(end) - run.train_steps(begin)) * config.batch_size
    figures = evaluate(model, data, codes, reader)
    metrics = {
        **figures,
        **({} if run.labelled is None else {"labelled_images": len(run.labelled)}),
        "epochs": config.n_epoch,
        "train_images_per_second": trained / seconds,
        "wall_seconds": seconds,
        "data": data.describe(),
    }
    write_json(run.directory / "metrics.json", metrics)
    draw_pictures(run, model, codes, history.rows, fixed_codes, limit)
    tensorboard.add_scalars(figures, config.n_epoch)
    for picture in sorted(run.plots.glob("*.png")):
        tensorboard.add_picture(picture.stem, picture, config.n_epoch)
    tensorboard.writer.close()
    for name, value in metrics.items():
        if isinstance(value, float):
            print(f"{name}: {value:.5g}")
    print(f"Results: {run.directory}", flush=True)


def build_model(config, data):
    """The untrained, compiled model of a configuration."""
    model = registry.load(MODELS, config.model)(**model_arguments(config, data))

    def optimizer(phase):  # the schedule sets the learning rate
        if config.optimizer == "adam":
            return FusedAdam(epsilon=1e-8)
        return FusedSGD(momentum=config.gan_momentum if phase in ("d", "g") else config.momentum)

    model.compile(**{f"{phase}_optimizer": optimizer(phase) for phase in model.phases})
    return model


def model_arguments(config, data):
    """What the model's constructor takes, from a configuration and its data."""
    of_model = {}
    if config.model == "semi_supervised":
        of_model = {
            "joint_discriminator": config.joint_discriminator,
            "cycle": config.cycle_rate > 0,
        }
    return {
        **of_model,
        "image_shape": data.image_shape,
        "n_classes": data.n_classes,
        "prior": config.prior,
        "n_z": config.n_z,
        "attributes": data.has_attributes,
        "network": config.network,
        "n_hidden": config.n_hidden,
        "conv_widths": tuple(map(int, config.conv_widths.split(","))),
        "d_hidden": config.d_hidden,
        "activation": config.activation,
        "output": config.output,
        "batch_norm": config.batch_norm,
        "keep_prob": config.keep_prob,
        "noise_std": config.noise_std if config.noised else 0.0,
        "shift": config.shift,
        "d_noise": config.d_noise,
        "balance": config.balance,
        "reconstruction": config.reconstruction,
        "init_std": config.init_std,
        "precision": config.precision,
        "seed": config.seed,
    }


def uses_xla(config):
    """Whether XLA compiles the train step: it pays on a GPU and costs on a CPU."""
    if config.jit_compile == "auto":
        return len(tf.config.list_physical_devices("GPU")) == 1
    return config.jit_compile == "on"


def steps_per_call(config, steps, done=0):
    """How many train steps a call of the train function takes, so that calls end where the epoch does.

    On a GPU, where steps are so short that calls show, as many as possible, unless checkpoints within the
    epoch are asked for; otherwise up to 50.

    Args:
        steps: of an epoch.
        done: steps of the first epoch that another process has taken.
    """
    shared = math.gcd(steps, done)
    if tf.config.list_physical_devices("GPU") and not config.checkpoint_every:
        return shared
    return max(count for count in range(1, 51) if shared % count == 0)


def axes_limit(model):
    """Half the side of the square that coding-space pictures show: the prior's reach and a margin."""
    return 1.15 * float(np.abs(model.sample_prior(10_000, seed=-1)[0]).max())


def draw_pictures(run, model, codes, rows, fixed_codes, limit):
    """Fills plots/.

    Args:
        codes: float (N, n_z), of all test images.
        rows: the rows of history.csv.
        fixed_codes: float (M, n_z), the codes of the samples.
        limit: see `axes_limit`.
    """
    config, data = run.config, run.data
    name = f"{data.name}, {config.prior}, n_z {config.n_z}"

    # An even choice over the test split, which digits and folders may hold sorted by class.
    chosen = evenly(np.arange(len(codes)), 100)
    plots.save_reconstructions(
        run.plots / "reconstructions.png",
        data.test_images[chosen],
        model.reconstruct(data.test_images[chosen], data.test_labels[chosen]),
        data.note,
    )
    plots.save_image_grid(
        run.plots / "samples.png",
        decode_samples(model, fixed_codes, data),
        10,
        f"Samples of the prior ({name})",
        data.note,
    )
    plots.save_curves(run.plots / "curves.png", rows, data.note)
    if config.n_z == 2:
        prior_codes, prior_labels = model.sample_prior(len(codes), seed=-1)
        prior_labels = prior_labels if model.labels_have_places else None
        plots.save_codes(
            run.plots / "prior.png",
            prior_codes,
            prior_labels,
            limit,
            f"Target prior ({name})",
            data.note,
        )
        plots.save_codes(
            run.plots / "codes.png",
            codes,
            data.test_labels,
            limit,
            f"Codes of {len(codes)} test images ({name})",
            data.note,
        )
    if 3 <= config.n_z <= 10:
        draw_scatter_matrices(run, model, codes)
    if hasattr(model, "classify"):
        probabilities = model.classify(data.test_images)
        plots.save_confusion(
            run.plots / "confusion.png", data.test_labels, probabilities.argmax(axis=1), data.note
        )
    if config.PMLR:
        draw_manifold(run, model)
    if model.decodes_labels and not model.attributes:
        draw_styles(run, model, codes)
    if config.animate:
        print("Drawing the animations ...", flush=True)
        folder = run.plots / "animations"
        folder.mkdir(exist_ok=True)
        animations.draw_traversals(folder, model, data, config.animated_axes(), config.traversal_samples)
        if model.decodes_labels:
            animations.draw_moving_labels(folder, model, data)


def draw_scatter_matrices(run, model, codes):
    """Pairs of axes of up to 2000 test codes, by class and by what D thinks of them."""
    data = run.data
    # Points on a dense plot hide each other, so more of them would show less.
    chosen = evenly(np.arange(len(codes)), 2000)
    images, labels = data.test_images[chosen], data.test_labels[chosen]
    logits = model.judge(images, labels)
    pictures = {
        "scatter_logits.png": (logits, "Test codes, by D's logit: above 0, D takes them for the prior's")
    }
    if not data.has_attributes:
        pictures["scatter_classes.png"] = (labels, "Test codes, by class")
    for name, (values, title) in pictures.items():
        plots.save_scatter_matrix(run.plots / name, codes[chosen], values, title, data.note)


def draw_styles(run, model, codes):
    """One style per row, taken from the test image at the left; the labels across."""
    data, n_classes = run.data, model.n_classes
    # The first test image of every label.
    chosen = [int(np.argmax(data.test_labels == label)) for label in range(n_classes)]
    images = model.decode(
        np.repeat(codes[chosen], n_classes, axis=0), np.tile(np.arange(n_classes), len(chosen))
    )
    plots.save_styles(
        run.plots / "styles.png",
        data.test_images[chosen],
        images,
        "The style of the image at the left",
        data.note,
    )


def draw_manifold(run, model):
    """The decoded plane: over the prior's percentiles, and along the part of each label.

    A decoder that sees the label gives one plane per label.
    """
    grid = model.prior.percentile_grid(MANIFOLD_SIDE, run.config.seed).reshape(-1, 2)
    title = f"Manifold over the percentiles of the {run.config.prior} prior"
    if model.decodes_labels:
        for label in range(model.n_classes):
            plots.save_image_grid(
                run.plots / f"manifold_label_{label}.png",
                model.decode(grid, np.full(len(grid), label)),
                MANIFOLD_SIDE,
                f"{title}, label {label}",
                run.data.note,
            )
        return
    plots.save_image_grid(run.plots / "manifold.png", model.decode(grid), MANIFOLD_SIDE, title, run.data.note)
    if model.labels_have_places:
        paths = model.prior.component_paths(MANIFOLD_SIDE)
        plots.save_image_grid(
            run.plots / "manifold_components.png",
            model.decode(paths.reshape(-1, 2)),
            MANIFOLD_SIDE,
            "Along the part of the prior that belongs to each label",
            run.data.note,
            row_labels=range(len(paths)),
        )
