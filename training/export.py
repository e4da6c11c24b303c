"""`--export`: a run's model for use without this program, and the model card that goes with it."""

import contextlib
import importlib.util
import json
import os
from pathlib import Path

from training.run import locked
from training.saved_config import saved_figures
from training.trained_run import trained_run
from utils.errors import UserError, first_line
from utils.files import atomic_folder, write_text

PACKAGES = {"saved_model": (), "onnx": ("tf2onnx", "onnx", "onnxruntime")}
LICENCE = """The program that trained this model is under the MIT licence. What the licence of the data
asks for may hold for the weights too: see to it before you share them."""
USE = {
    "saved_model": """
import numpy as np
import tensorflow as tf

model = tf.saved_model.load("{folder}")
images = np.zeros((2, {shape}), np.uint8)
codes = model.signatures["encoder_uint8"](images=tf.constant(images))["codes"]
again = model.signatures["decoder"](codes=codes{labels})["images"]  # float32, from 0 to 1
new = model.signatures["generator"]({generator})["images"]
""",
    "onnx": """
import numpy as np
import onnxruntime

def run(name, **inputs):
    return onnxruntime.InferenceSession(f"{folder}/{{name}}.onnx").run(None, inputs)[0]

images = np.zeros((2, {shape}), np.uint8)
codes = run("encoder_uint8", images=images)
again = run("decoder", codes=codes{labels})  # float32, from 0 to 1
new = run("generator", {generator})
""",
}


def prepare_export(config):
    """What there is to export, looked at before TensorFlow is imported.

    Args:
        config: a `Config` whose `export` and `run_dir` are set.

    Returns:
        the `Config` of the run, its description of its data, and its figures, which may be {}.

    Raises:
        UserError: without a run, a trained model or the packages, in one line.
    """
    saved, data = trained_run(config)
    missing = [name for name in PACKAGES[config.export] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--export {config.export} needs {', '.join(missing)}: pip install -r requirements-export.txt."
        )
    return saved, data, saved_figures(Path(config.run_dir))


def export_run(config, saved, data, figures):
    """Writes `export/FORMAT` in the run directory, whole or not at all: the parts and a model card.

    Args:
        config: as of `prepare_export`.
        saved, data, figures: what that returned.

    Raises:
        UserError: if another process has the run, or the model cannot be read, or the folder not written.
    """
    from models.loading import load_model

    directory = Path(config.run_dir)
    folder = directory / "export" / config.export
    try:
        with contextlib.ExitStack() as lock:
            lock.callback(os.close, locked(directory))
            model = load_model(directory)
            with atomic_folder(folder) as temporary:
                differences = model.export(temporary / "model", config.export)
                write_text(temporary / "README.md", card(config, model, saved, data, figures))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {first_line(error)}.") from None
    except Exception as error:  # whatever the converters raise, e.g. on operations of a user's own class
        raise UserError(f"The model cannot become {config.export}: {first_line(error)}") from None
    print(
        f"Exported to {folder}: {', '.join(differences)}. They agree with the model within "
        f"{max(differences.values()):.1e}, on 1,000 images.",
        flush=True,
    )


def card(config, model, saved, data, figures):
    """The text of the model card: YAML that hubs read, then what the model is and how it is used.

    Args: as of `export_run`, and the trained model.
    """
    name = f"{saved.model} adversarial autoencoder"
    shown = {name: value for name, value in figures.items() if isinstance(value, float)}
    front = [
        "license: mit",
        f"library_name: {'tf-keras' if config.export == 'saved_model' else 'onnx'}",
        "pipeline_tag: unconditional-image-generation",
        f"datasets: {json.dumps([str(data.get('name', 'unknown'))])}",
        f"tags: {json.dumps(['adversarial-autoencoder', 'generative', saved.model, saved.prior])}",
    ]
    # Where the data lay on this machine is nobody's business.
    about = {key: value for key, value in data.items() if key != "source" and value != ""}
    flags = [line for line in saved.flag_lines() if not line.startswith("--data_dir=")]
    onnx = config.export == "onnx"
    rows = f"np.eye({model.n_classes}, dtype=np.float32)[[0, 0]]"
    labels = rows if onnx else f"tf.constant({rows})"
    shape = ", ".join(map(str, model.image_shape))
    readers = "`encoder` and `classifier` take" if hasattr(model, "classify") else "`encoder` takes"
    use = USE[config.export].format(
        folder="model",
        shape=shape,
        labels=f", labels={labels}" if model.decodes_labels else "",
        generator=_generator_call(model, onnx, labels),
    )
    parts = [
        "---\n" + "\n".join(front) + "\n---",
        f"# A {name}",
        f"Images `(N, {shape})`, codes of {model.n_z} numbers that follow the prior `{saved.prior}` "
        f"(Makhzani et al., [1511.05644](https://arxiv.org/abs/1511.05644)). {readers} float images from 0 "
        "to 1, or bytes with the ending `_uint8`; `decoder` and `generator` return floats. Any batch size.",
        f"## How to use\n\n```python\n{use.strip()}\n```\n\n{_generator_text(onnx)}",
        "## Figures\n\nOf the test images, without noise.\n\n" + _table(shown, "figure"),
        "## Data\n\n" + _table(about, "property"),
        "## Training\n\n```\n" + "\n".join(flags) + "\n```",
        "## Licence\n\n" + LICENCE,
    ]
    return "\n\n".join(parts) + "\n"


def _generator_call(model, onnx, rows):
    """The arguments of the generator in the example: two samples, of label 0 where there are labels."""
    attributes = model.decodes_labels and model.attributes
    if onnx:
        extra = f", labels={rows}" if attributes else ", labels=np.array([0, 0])" if model.has_labels else ""
        return "numbers=np.array([0, 1])" + extra
    if attributes:
        return f"labels={rows}, seed=tf.constant(0)"
    return "count=tf.constant(2), seed=tf.constant(0)" + (
        ", label=tf.constant(0)" if model.has_labels else ""
    )


def _generator_text(onnx):
    if onnx:
        return "`generator` holds 10,000 samples of the prior, and decodes those of the given numbers."
    return "`generator` draws from the prior by a seed; a label below 0 has labels drawn too."


def _table(values, title):
    """A Markdown table of a dict; what could break out of its cell is escaped."""
    lines = [f"| {title} | value |", "|---|---|"]
    for name, value in values.items():
        text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value).replace("|", "\\|")
        lines.append(f"| {name} | {text.strip(chr(34))} |")
    return "\n".join(lines) if values else "None are known."
