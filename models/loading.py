"""Loads trained models, from files that may come from anywhere.

Keras's own loader builds whatever the file describes, as large as it says, and reads what links inside it
point to. Here a file is only shown to it when it is what `model.save` of these models writes: three
members, classes from a short list, sizes that its weights bear out, plain arrays.
"""

import io
import itertools
import json
import math
import sys
import zipfile
from pathlib import Path

import h5py
import keras

from models import MODELS
from models.adversarial_autoencoder import AdversarialAutoencoder
from models.model_file import read_description, value_differences
from models.networks import smallest_side
from models.settings import updated_config
from priors.prior import Prior
from utils import registry
from utils.errors import UserError, first_line
from utils.untrusted import read_limited, refuse_links

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = {"metadata.json", CONFIG, WEIGHTS}
MAX_JSON_BYTES = 2**20  # the configuration of the largest model has 4 kB
MAX_RUN_BYTES = 2**24  # of a run's config.json
MAX_CLASSES = 2**10  # the labels of data sets are uint8
# Beside those of this project; they hold nothing but numbers.
OPTIMIZERS = {
    "keras.optimizers": (keras.optimizers, keras.optimizers.Optimizer),
    "keras.optimizers.schedules": (
        keras.optimizers.schedules,
        keras.optimizers.schedules.LearningRateSchedule,
    ),
}


class BadModelFile(UserError, ValueError):
    """A file that is no model of this project, or a damaged one."""


def load_model(path) -> keras.Model:
    """Loads a trained model, with its optimizers, from a run directory or a .keras file.

    The memory it takes is at most a few times the size of the file.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: in one line, if the file is damaged, of a newer version, not of the run whose directory it
            is in, or anything else than a saved model of this project.
    """
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"There is no trained model at {file}.")
    try:
        noted = read_description(file)
        if noted and (path / "config.json").is_file():
            _refuse_another_run(path, noted)
        _check(file)
        return keras.saving.load_model(file, safe_mode=True)
    except Exception as error:  # whatever zipfile, json, h5py and Keras raise on damaged files
        raise BadModelFile(f"{file} is damaged or no model of this project: {first_line(error)}") from None


def _refuse_another_run(directory, noted):
    """Raises a ValueError where a model file's description is not that of the run in the same directory."""
    refuse_links(directory)
    run = json.loads(read_limited(directory / "config.json", MAX_RUN_BYTES))
    if differences := value_differences(noted, run):
        raise ValueError(f"it belongs to another run: {', '.join(differences)}")


def _check(file):
    """Raises an exception, of many types, where a file differs from what `model.save` writes."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sorted(member.filename for member in members) != sorted(MEMBERS):
            raise ValueError(f"its members are not {', '.join(sorted(MEMBERS))}")
        sizes = {member.filename: member.file_size for member in members}
        if max(sizes[name] for name in MEMBERS - {WEIGHTS}) > MAX_JSON_BYTES:
            raise ValueError("its configuration is too large")
        n_weights = _check_config(json.loads(archive.read(CONFIG)))
        _check_weights(archive.read(WEIGHTS), n_weights)


def _check_config(saved):
    """Checks the classes and sizes that a configuration names; returns a number of weights it must have."""
    classes = {f"aae>{registry.load(MODELS, name).__name__}" for name in MODELS}  # registers them with Keras
    if saved["registered_name"] not in classes and not _is_own_model(saved["registered_name"]):
        raise ValueError(f"it holds a {saved['registered_name']!r}")
    config = updated_config(saved["config"])
    _refuse_unknown_prior(config["prior"])
    height, width, channels = config["image_shape"]
    n_z, n_hidden = config["n_z"], config["n_hidden"]
    widths = [int(width) for width in config["conv_widths"].split(",")]
    d_hidden = config["d_hidden"] or n_hidden
    sizes = [height, width, channels, config["n_classes"], n_z, n_hidden, d_hidden, *widths]
    if not all(type(size) is int and size >= 1 for size in sizes):
        raise ValueError(f"its sizes are {sizes}")
    if config["n_classes"] > MAX_CLASSES:
        raise ValueError(f"it has {config['n_classes']} classes")
    _check_objects([config, saved.get("compile_config")])
    if config["network"] == "conv":
        smallest = math.prod(smallest_side((height, width), widths)) * widths[-1]
        kernels = sum(4 * 4 * a * b for a, b in itertools.pairwise(widths))
        encoder = 3 * 3 * channels * widths[0] + kernels + smallest * n_z
    elif config["network"] == "dense":
        encoder = n_hidden * (height * width * channels + n_hidden + n_z)
    else:
        encoder = 0  # a user's own network, whose size only its class knows
    # The decoder mirrors the encoder, both may have averages; of the discriminators, the hidden layer of one.
    return (4 if config.get("ema_decay") else 2) * encoder + d_hidden**2


def _is_own_model(name):
    """Whether a name is that of a model which the user's own code, that has been imported, has registered."""
    found = keras.saving.get_registered_object(name) if str(name).startswith("aae>") else None
    return isinstance(found, type) and issubclass(found, AdversarialAutoencoder)


def _refuse_unknown_prior(name):
    """Refuses a user's own prior, package.module:Class, that has not been imported: no file imports code."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        found = getattr(sys.modules.get(module), attribute, None)
        if not (isinstance(found, type) and issubclass(found, Prior)):
            raise ValueError(f"its prior is {name}: import {module} first, if you trust it")


def _check_objects(value):
    """Checks that all objects inside a configuration are ones that cannot do anything but compute."""
    if isinstance(value, list):
        for item in value:
            _check_objects(item)
    elif isinstance(value, dict):
        if "class_name" in value:
            name, module, registered = (value.get(k) for k in ("class_name", "module", "registered_name"))
            ours = registered in ("aae>FusedAdam", "aae>FusedSGD")
            if not ours and not (_is_plain(module, name) and registered in (None, name)):
                raise ValueError(f"it holds a {name!r} of {module!r}")
        for item in value.values():
            _check_objects(item)


def _is_plain(module, name):
    """Whether Keras would find one of its optimizers, schedules or number types under a name."""
    if (module, name) == ("keras", "DTypePolicy"):
        return True
    package, base = OPTIMIZERS.get(module, (None, object))
    found = getattr(package, name, None)
    return package is not None and isinstance(found, type) and issubclass(found, base)


def _check_weights(content, n_weights):
    """Checks an HDF5 file: plain arrays that lie in it, together at least `n_weights` numbers.

    Half-precision weights become float32 in memory, so that it is then twice the file's size.
    """
    size, numbers, seen = 0, 0, set()

    def check(group):
        nonlocal size, numbers
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name!r} is a link")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise ValueError(f"{name!r} is there twice")
            seen.add(address)
            if isinstance(item, h5py.Group):
                check(item)
            elif item.external or item.is_virtual or item.dtype.hasobject:
                raise ValueError(f"{name!r} is no plain array")
            else:
                size += item.nbytes
                numbers += item.size if item.dtype in ("float16", "float32") else 0
                if size > len(content):
                    raise ValueError("its arrays claim to be larger than the file")

    with h5py.File(io.BytesIO(content), "r") as file:
        check(file)
    if numbers < n_weights:
        raise ValueError(f"its configuration speaks of {n_weights} weights, and there are {numbers}")
