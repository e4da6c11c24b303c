"""Makes a run small enough to ship: `python -m experiments.shipped runs/NAME examples/NAME`.

The copy holds what `load_model`, `--export` and `make compare` read: the model without its optimizers, its
weights in half precision, figures, history, settings without places, and a few pictures.
"""

import argparse
import io
import json
import sys
import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np

from models.loading import WEIGHTS, load_model
from models.model_file import read_description, seal
from utils.errors import UserError, first_line
from utils.files import atomic_folder, write_json, write_text
from utils.untrusted import read_limited

MAX_BYTES = 2**24  # of each file that is read
PLACES = ("run_dir", "data_dir")
PICTURES = ("codes", "manifold", "manifold_components", "samples", "styles")


def main(argv):
    """Copies the run that the words name; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shipped", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    words = parser.parse_args(argv[1:])
    try:
        ship(words.run, words.folder)
    except (UserError, OSError) as error:
        print(f"shipped: error: {first_line(error)}", file=sys.stderr)
        return 2
    print(f"{words.folder}: {sum(path.stat().st_size for path in words.folder.rglob('*.*'))} bytes")
    return 0


def ship(run, folder):
    """Writes the small copy of a run, keeping a README.md that is there; whole or not at all."""
    card = folder / "README.md"
    text = card.read_text() if card.is_file() else ""
    with atomic_folder(folder) as new:
        names = ("config.json", "metrics.json")
        config, metrics = (json.loads(read_limited(run / name, MAX_BYTES)) for name in names)
        config["flags"] |= dict.fromkeys(PLACES, "") | {"resume": False}
        for about in (config, metrics):
            about["data"]["source"] = about["data"]["name"]
        write_json(new / "config.json", config)
        write_json(new / "metrics.json", metrics)
        (new / "history.csv").write_bytes(read_limited(run / "history.csv", MAX_BYTES))
        description = read_description(run / "model.keras")
        description["data"]["source"] = description["data"]["name"]
        save_small(load_model(run), new / "model.keras", description)
        (new / "plots").mkdir()
        for name in PICTURES:
            if (run / "plots" / f"{name}.png").is_file():
                _shrink(run / "plots" / f"{name}.png", new / "plots" / f"{name}.png")
        if text:
            write_text(new / card.name, text)


def save_small(model, path, description):
    """Writes a .keras file that `load_model` takes: without optimizers, weights in half precision.

    Args:
        model: whose averages, if there are any, take the place of what they average.
        description: as of `save_model`.
    """
    averages = set()
    for average, network in model.averaged:
        network.set_weights(average.get_weights())
        averages |= {id(weight) for weight in average.weights}
    bare = type(model).from_config({**model.get_config(), "ema_decay": 0.0})
    bare.set_weights([weight.numpy() for weight in model.weights if id(weight) not in averages])
    whole = path.with_name(f".whole{path.suffix}")
    bare.save(whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            new.writestr(member, _halved(content) if member == WEIGHTS else content)
    whole.unlink()
    seal(path, description)


def _halved(content):
    """An HDF5 file with float16 in place of float32."""
    target = io.BytesIO()
    with h5py.File(io.BytesIO(content), "r") as old, h5py.File(target, "w") as new:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                copied = new.require_group(name)
            else:
                values = item[()]
                half = values.dtype == np.float32
                copied = new.create_dataset(name, data=values.astype(np.float16) if half else values)
            copied.attrs.update(item.attrs)

        old.visititems(copy)
    return target.getvalue()


def _shrink(source, target):
    """A picture with few colours, or in grey where it has none, which takes a third of the space."""
    picture = cv2.imread(str(source))
    if (np.ptp(picture.astype(int), axis=2) == 0).all():
        picture = picture[..., 0] // 8 * 8
        picture = np.minimum(picture * (255 / 248), 255).astype(np.uint8)
    cv2.imwrite(str(target), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
