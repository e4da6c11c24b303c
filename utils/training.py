"""Trains a model on a prepared run, measures it, and draws its pictures."""

import sys
import time

import numpy as np

from data.pipeline import evaluation_batches, training_batches
from models import MODELS, load_model
from utils import callbacks, plots, registry
from utils.errors import UserError
from utils.evaluation import evaluate
from utils.files import write_json

NOISE_STD = 0.3  # first seed and paper
N_SAMPLES = 100
MANIFOLD_SIDE = 20


def train_and_evaluate(run):
    """Runs everything that comes after the data: training, model.keras, metrics.json and plots/.

    Args:
        run: a `Run`.

    Raises:
        UserError: if the training diverges.
    """
    config, data = run.config, run.data
    path, first_epoch = run.last_checkpoint()
    model = load_model(path) if path else build_model(config, data)
    print(
        f"{config.model} on {data.name} ({data.source}): {len(data.train_images)} train, "
        f"{len(data.validation_images)} validation, {len(data.test_images)} test images\n"
        f"Results: {run.directory}"
        + (f"\nResuming after epoch {first_epoch} of {config.n_epoch}" if path else ""),
        flush=True,
    )
    # The codes of the previews and of samples.png: the same ones every time.
    fixed_codes, _ = model.sample_prior(N_SAMPLES, seed=0)
    limit = axes_limit(model)
    tensorboard = callbacks.TensorBoard(
        run.directory / "tensorboard", data.test_images[: callbacks.N_PREVIEWED]
    )
    history = callbacks.History(run.directory / "history.csv", first_epoch)
    steps = len(data.train_images) // config.batch_size
    start = time.perf_counter()
    try:
        model.fit(
            training_batches(
                data.train_images, data.train_labels, config.batch_size, config.seed, first_epoch
            ),
            epochs=config.n_epoch,
            initial_epoch=first_epoch,
            steps_per_epoch=steps,
            validation_data=evaluation_batches(data.validation_images, data.validation_labels),
            shuffle=False,  # `training_batches` does it
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                callbacks.StepSchedule(config.learning_rates),
                callbacks.StopOnNaN(),
                history,
                tensorboard,
                callbacks.Previews(run.plots / "previews", data, fixed_codes, limit, tensorboard),
                callbacks.Checkpoints(run.checkpoints),
            ],
        )
    except FloatingPointError as error:
        raise UserError(str(error)) from None
    seconds = time.perf_counter() - start

    callbacks.save_model(model, run.directory / "model.keras")
    codes = model.encode(data.test_images)
    trained = (config.n_epoch - first_epoch) * steps * config.batch_size
    metrics = {
        **evaluate(model, data, codes),
        "epochs": config.n_epoch,
        "train_images_per_second": trained / seconds,
        "wall_seconds": seconds,
        "data": data.describe(),
    }
    write_json(run.directory / "metrics.json", metrics)
    draw_pictures(run, model, codes, history.rows, fixed_codes, limit)
    for picture in sorted(run.plots.glob("*.png")):
        tensorboard.add_picture(picture.stem, picture, config.n_epoch)
    tensorboard.writer.close()
    for name, value in metrics.items():
        if isinstance(value, float):
            print(f"{name}: {value:.5g}")
    print(f"Results: {run.directory}", flush=True)


def build_model(config, data):
    """The untrained, compiled model of a configuration."""
    model = registry.load(MODELS, config.model)(
        image_shape=data.image_shape,
        n_classes=data.n_classes,
        prior=config.prior,
        n_z=config.n_z,
        n_hidden=config.n_hidden,
        keep_prob=config.keep_prob,
        noise_std=NOISE_STD if config.noised else 0.0,
        d_noise=config.d_noise,
        seed=config.seed,
    )
    model.compile()  # the schedule sets the learning rates
    return model


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
    chosen = np.linspace(0, len(codes) - 1, 100).astype(int)
    plots.save_reconstructions(
        run.plots / "reconstructions.png",
        data.test_images[chosen],
        model.decode(codes[chosen]),
        data.note,
    )
    plots.save_image_grid(
        run.plots / "samples.png",
        model.decode(fixed_codes),
        10,
        f"Samples of the prior ({name})",
        data.note,
    )
    plots.save_curves(run.plots / "curves.png", rows, data.note)
    if config.n_z == 2:
        prior_codes, prior_labels = model.sample_prior(len(codes), seed=-1)
        prior_labels = prior_labels if model.prior.uses_labels else None
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
    if config.PMLR:
        draw_manifold(run, model)


def draw_manifold(run, model):
    """The decoded plane: over the prior's percentiles, and along the part of each label."""
    grid = model.prior.percentile_grid(MANIFOLD_SIDE, run.config.seed)
    plots.save_image_grid(
        run.plots / "manifold.png",
        model.decode(grid.reshape(-1, 2)),
        MANIFOLD_SIDE,
        f"Manifold over the percentiles of the {run.config.prior} prior",
        run.data.note,
    )
    if model.prior.uses_labels:
        paths = model.prior.component_paths(MANIFOLD_SIDE)
        plots.save_image_grid(
            run.plots / "manifold_components.png",
            model.decode(paths.reshape(-1, 2)),
            MANIFOLD_SIDE,
            "Along the part of the prior that belongs to each label",
            run.data.note,
            row_labels=range(len(paths)),
        )
