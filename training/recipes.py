"""Defaults that follow from other settings or from the data: those of a recipe, G's rate, the batch."""

import dataclasses
import math

from models import CLUSTERING, LABEL_HEADS
from priors import PLANAR_PRIORS

# Values that a recipe sets where the command line does not. "seed" is made of the flags' own defaults.
RECIPES = {
    "seed": {},
    "paper": {
        "batch_size": 100,
        "keep_prob": 1.0,
        "optimizer": "sgd",
        "momentum": 0.9,
        "gan_momentum": 0.1,
        "reconstruction": "half_sum",
        "lr_start": 1e-2,
        "lr_mid": 1e-3,
        "lr_mid_epoch": 50,
        "lr_end": 1e-4,
        "lr_end_epoch": 1000,
        "d_rate": 10.0,
        "g_rate": 10.0,
        "ce_rate": 10.0,
        "cycle_rate": 10.0,
        "consistency_rate": 10.0,
        "d_noise": 0.0,
        "d_penalty": 0.0,
        "d_distortion": 0.0,
        "consistency": False,
        "distortion": 0.0,
        "vat_radius": 0.0,
        "noised": True,
        "noise_std": 0.3,
        "d_label": "input",
        "clean_epoch": 0,
        "ema_decay": 0.0,
        "init_std": 0.01,
    },
}
# The paper's training in 50 epochs instead of 5000: docs/semi_supervised.md has the ablation.
RECIPES["short"] = RECIPES["paper"] | {"shift": 2, "n_epoch": 50, "lr_mid_epoch": 25, "lr_end_epoch": 46}

# With these a conditional model's code does not tell the label.
CONDITIONAL = {"d_rate": 0.8, "g_rate": 0.6, "d_penalty": 0.1, "keep_prob": 1.0}
# As many as codes need to follow; in more, the encoder learns by heart where training images belong.
CLEAN_EPOCHS = 10
# The first seed's.
LR_MID_EPOCH = 50
# On the roll D gets ever further ahead while the rate is high, and more steps place no more codes.
ROLL_STEPS = 6_400


def dependent_defaults(given, named):
    """Defaults that follow from other flags: of the recipe and the model, D, G, when rate and noise end.

    Args:
        given: values by name.
        named: names of those that are not defaults.

    With a label-free prior over a larger code, G at the full rate outruns D, which learns at a fifth of
    it: D stays undecided while the codes are far from the prior, and G's Adam turns its noise into full
    steps that undo the autoencoder's. On the plane and where labels are sorted, G needs the full rate:
    at a fifth, D wins.

    The decoder of a conditional model obeys the label as far as the code does not tell it, so D must not fall
    behind: a smooth one lets both players be fast. Noise would hide from D what clean images' codes tell.
    On the mixture and the roll, labels are obeyed either way, and codes are nearer to the prior without.

    Where labels have parts of the prior, an output of D for each sorts the classes sooner. Where they have
    none, D learns less of each, and the codes stay further from the prior. Distorted copies teach the encoder
    where images belong that it has not seen. On the roll, noise widens the ways across the parts of others,
    and new images land too far along it, less so if G has learned to leave copies near their images.

    Noise and dropout spread the codes that D and G fit to the prior, and others serve: a supervised model's
    last epochs go without, once the rate has fallen. Where labels have parts of the prior, these are few.
    On the roll, whose rate falls when `with_data` says, they are a quarter of a short run.
    """
    prior, model = given["prior"], given["model"]
    on_plane = prior in PLANAR_PRIORS or given["n_z"] == 2
    g_rate = 1.0 if on_plane or model in LABEL_HEADS else 0.2
    sorted_by_label = model == "supervised" and on_plane and prior in ("gaussian", *PLANAR_PRIORS)
    on_roll = sorted_by_label and prior == "swiss_roll"
    lr_mid_epoch = 0 if on_roll and "lr_mid_epoch" not in named else given["lr_mid_epoch"]
    clean_epoch = 0
    if model == "supervised" and given["lr_schedule"] == "step":
        clean_epoch = lr_mid_epoch or min(LR_MID_EPOCH, given["n_epoch"] - given["n_epoch"] // 4)
        if sorted_by_label:
            clean_epoch = max(clean_epoch, given["n_epoch"] - CLEAN_EPOCHS)
    copied = model == "supervised" and (given["consistency"] if "consistency" in named else on_roll)
    usual = {
        "g_rate": g_rate,
        "d_label": "output" if sorted_by_label else "input",
        "d_distortion": 0.2 if sorted_by_label else 0.0,
        "noise_std": 0.1 if on_roll and given["noised"] else 0.3,
        "lr_mid_epoch": lr_mid_epoch,
        "clean_epoch": clean_epoch,
        "consistency": on_roll,
        "distortion": 0.2 if copied else 0.0,
        "vat_radius": 0.5 if copied else 0.0,
    }
    if model == "conditional" and prior not in PLANAR_PRIORS:
        usual |= CONDITIONAL | {"noised": "noise_std" in named}
    return {**usual, **RECIPES.get(given["recipe"], {}), **_of_model(given, named)}


def _unlabelled(given, named):
    """Whether a supervised model is to learn from images without labels, too."""
    return given["unlabelled"] if "unlabelled" in named else "num_samples" in named


def with_data(config, n_images):
    """A `Config` with the batch size and the epochs at the first rate that zeros mean with so many images."""
    batch_size = config.batch_size or usual_batch_size(n_images)
    of_steps = math.ceil(ROLL_STEPS / max(1, n_images // batch_size))
    lr_mid_epoch = config.lr_mid_epoch or min(of_steps, LR_MID_EPOCH, config.lr_end_epoch)
    return dataclasses.replace(config, batch_size=batch_size, lr_mid_epoch=lr_mid_epoch)


def usual_batch_size(n_images):
    """The first seed's 128; less of so few training images that its 100 epochs would end too soon."""
    return 128 if n_images >= 128 * 100 else 32


def _of_model(given, named):
    model = given["model"]
    if model == "supervised":
        return {"unlabelled": _unlabelled(given, named)}
    if model not in CLUSTERING:
        return {}
    # The paper's two discriminators; without labels and without a cycle, most clusters stay empty.
    clusters = {"n_clusters": 16} if model == "clustering" else {}
    return {"joint_discriminator": False, "cycle": bool(clusters or given["n_clusters"]), **clusters}
