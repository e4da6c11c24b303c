"""Files that are called .keras and are not what `model.save` writes."""

import io
import json
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest

from models import MODELS, load_model
from models.loading import CONFIG, WEIGHTS
from models.optimizers import FusedSGD
from utils.errors import UserError


@pytest.fixture
def file(make_model, tmp_path):
    """A small saved model."""
    make_model().save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def rewrite(file, **changes):
    """Replaces members of an archive by what a function makes of their content, or adds them."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, change in changes.items():
        members[name] = change(members.get(name))
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def rewrite_config(file, change):
    def changed(content):
        saved = json.loads(content)
        change(saved)
        return json.dumps(saved)

    rewrite(file, **{CONFIG: changed})


def rewrite_weights(file, change):
    def changed(content):
        h5 = io.BytesIO(content)
        with h5py.File(h5, "r+") as opened:
            change(opened)
        return h5.getvalue()

    rewrite(file, **{WEIGHTS: changed})


def refusal(file):
    """The one line with which a file is refused, without allocating what it asks for."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=file.name) as caught:
            load_model(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
    assert isinstance(caught.value, UserError)  # so that main.py says it, too
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "optimizer", [FusedSGD, lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, 9))]
)
def test_what_the_models_save_is_loaded(make_model, tmp_path, name, optimizer):
    model = make_model(model=name, prior="gaussian", n_z=3, precision="bfloat16")
    model.compile(**{f"{phase}_optimizer": optimizer() for phase in model.phases})
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path)
    assert type(loaded) is type(model)
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_that_is_rewritten_unchanged_is_loaded(file):
    rewrite_config(file, lambda saved: None)
    rewrite_weights(file, lambda h5: None)
    assert load_model(file).n_z == 2


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" * 9], ids=["empty", "text", "zip"])
def test_no_archive(file, content):
    file.write_bytes(content)
    assert refusal(file)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.999])
def test_a_truncated_file(file, keep):
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    assert refusal(file)


def test_flipped_bits(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "checksum is wrong" in refusal(file)


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "assets/evil.txt", "model.weights.npz"])
def test_other_members_are_not_extracted(file, name):
    rewrite(file, **{name: lambda content: b"evil"})
    assert "members" in refusal(file)
    assert [path.name for path in file.parent.rglob("*")] == [file.name]
    assert not (file.parent.parent / "evil.txt").exists()


def test_a_member_that_is_there_twice(file):
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(CONFIG, b"{}")
    assert "members" in refusal(file)


def test_a_zip_bomb(file):
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[WEIGHTS] += bytes(10**8)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    del members, content
    assert "unpack to more" in refusal(file)


OTHER_OBJECTS = {
    "a lambda": {"class_name": "__lambda__", "module": "keras.optimizers", "config": {"value": ["4wA="]}},
    "a lambda layer": {"class_name": "Lambda", "module": "keras.layers", "config": {}},
    "a saved program": {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "."}},
    "an array": {
        "class_name": "__numpy__",
        "module": "keras.optimizers",
        "config": {"value": "x", "dtype": "U1000000000"},
    },
    "a function": {"class_name": "function", "module": "keras.optimizers", "config": "get"},
    "a function by name": {"class_name": "deserialize", "module": "keras.optimizers", "config": {}},
    "one of ours in disguise": {
        "class_name": "aae>SupervisedAAE",
        "module": "keras.optimizers",
        "config": {"n_hidden": 10**9},
    },
    "a disguised layer": {
        "class_name": "Adam",
        "module": "keras.optimizers",
        "registered_name": "aae>DenseNetwork",
        "config": {"widths": [10**9, 10**9]},
    },
}


@pytest.mark.parametrize("value", OTHER_OBJECTS.values(), ids=OTHER_OBJECTS)
@pytest.mark.parametrize("place", ["optimizer", "rate", "argument"])
def test_other_objects_are_not_built(file, value, place):
    def change(saved):
        if place == "optimizer":
            saved["compile_config"]["ae_optimizer"] = value
        elif place == "rate":
            saved["compile_config"]["ae_optimizer"]["config"]["learning_rate"] = value
        else:
            saved["config"]["prior"] = {"nested": [value]}

    rewrite_config(file, change)
    assert "it holds a" in refusal(file)


def test_another_class_is_not_built(file):
    rewrite_config(file, lambda saved: saved.update(registered_name="keras>Sequential"))
    assert "Sequential" in refusal(file)


CONFIGS = {
    "huge layers": {"n_hidden": 10**9},
    "layers of more weights than there are": {"n_hidden": 3000},
    "a huge discriminator": {"d_hidden": 10**9},
    "huge convolutions": {"network": "conv", "conv_widths": [10**6, 10**6]},
    "convolutions of huge images": {"network": "conv", "image_shape": [10**6, 10**6, 1]},
    "an unknown network": {"network": "other"},
    "a huge code": {"n_z": 10**9},
    "huge images": {"image_shape": [10**9, 10**9, 10**9]},
    "huge classes": {"n_classes": 10**9},
    "negative images": {"image_shape": [-8, -8, 1]},
    "flat images": {"image_shape": [8, 8]},
    "text": {"n_hidden": "16"},
    "a fraction": {"n_z": 2.5},
    "true": {"n_hidden": True},
    "an unknown prior": {"prior": "other"},
    "a module as prior": {"prior": "os:system"},
    "other weights": {"n_z": 4},
    "an unknown argument": {"other": 1},
    "an unknown precision": {"precision": "other"},
}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_configurations_that_do_not_fit(file, changes):
    rewrite_config(file, lambda saved: saved["config"].update(changes))
    assert refusal(file)


def test_averages_that_are_not_there_are_not_made(make_model, tmp_path):
    """A file without optimizers has no other numbers that could pass for them."""
    model = make_model()
    bare = type(model).from_config(model.get_config())
    bare.save(tmp_path / "model.keras")
    rewrite_config(tmp_path / "model.keras", lambda saved: saved["config"].update(ema_decay=0.9))
    assert "its configuration speaks of" in refusal(tmp_path / "model.keras")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 10**5, "1" * 5000], ids=lambda text: text[:9])
def test_configurations_that_are_none(file, text):
    rewrite(file, **{CONFIG: lambda content: text})
    assert refusal(file)


def path_of_a_kernel(h5):
    names = []
    h5.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return next(name for name in names if h5[name].ndim == 2)


def replaced(make):
    """A change that puts something else into the place of a kernel."""

    def change(h5):
        path = path_of_a_kernel(h5)
        old = h5[path][()]
        del h5[path]
        make(h5, path, old)

    return change


HUGE = {"shape": (10**12,), "dtype": "f4", "chunks": (1000,), "compression": "gzip"}


def double_without_end(h5):
    """40 empty groups, each twice in the one before it: 2^40 paths."""
    group = h5
    for _ in range(40):
        group = group.create_group("first")
        group.parent["second"] = group


WEIGHT_CHANGES = {
    "gone": replaced(lambda h5, path, old: None),
    "another shape": replaced(lambda h5, path, old: h5.create_dataset(path, data=old.ravel())),
    "text": replaced(lambda h5, path, old: h5.create_dataset(path, data=["x"])),
    "huge": replaced(lambda h5, path, old: h5.create_dataset(path, **HUGE)),
    "huge elsewhere": lambda h5: h5.create_dataset("other", **HUGE),
    "a link": replaced(lambda h5, path, old: h5.__setitem__(path, h5py.SoftLink("/step"))),
    "another file": replaced(
        lambda h5, path, old: h5.__setitem__(path, h5py.ExternalLink("/etc/passwd", "/"))
    ),
    "outside": replaced(
        lambda h5, path, old: h5.create_dataset(
            path, old.shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
        )
    ),
    "a circle": lambda h5: [h5.__setitem__(f"circle{i}", h5["/"]) for i in range(2)],
    "2^40 paths": double_without_end,
}


@pytest.mark.parametrize("change", WEIGHT_CHANGES.values(), ids=WEIGHT_CHANGES)
def test_weights_that_are_no_plain_arrays_of_the_model(file, change):
    rewrite_weights(file, change)
    assert refusal(file)
