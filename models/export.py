"""Trained models for use without this program: a SavedModel with named signatures, or ONNX files."""

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from models.augmentation import to_unit_interval
from models.precision import exact_products
from utils.errors import UserError
from utils.files import atomic_folder

N_CHECKED = 1000  # images that an export must agree on
TOLERANCE = 1e-5  # by so much may it differ, as a share of the largest value where that is above 1
N_KEPT = 10_000  # samples of the prior that an ONNX file holds: it cannot draw by a seed


class Part(NamedTuple):
    """What becomes one signature, or one ONNX file.

    Attributes:
        function: of tensors, in the order of `inputs`; returns a dict of one tensor.
        inputs: a list of `tf.TensorSpec`, with names.
        examples: numpy arrays to try it with, in the same order.
        expected: what the model's own methods make of them, float32.
    """

    function: Callable
    inputs: list
    examples: list
    expected: np.ndarray


@exact_products()
def export(model, folder, format):
    """Writes a model's parts to a folder, whole or not at all, once they agree with the model.

    They compute in float32, as does the model that they are held against.

    Args:
        model: an `AdversarialAutoencoder`.
        folder: to write; one that is there is replaced.
        format: "saved_model" or "onnx".

    Returns:
        dict: the largest difference of each part's outputs on `N_CHECKED` examples.

    Raises:
        ValueError: for another format.
        ImportError: without the packages of requirements-export.txt, which ONNX needs.
        UserError: if a part differs by more than `TOLERANCE`; nothing is written then.
        OSError: if the folder cannot be written.
    """
    if format not in WRITERS:
        raise ValueError(f"Expected the format {' or '.join(WRITERS)}, got {format!r}.")
    write, read = WRITERS[format]
    parts = parts_of(_in_float32(model), format)
    with atomic_folder(folder) as temporary:
        write(parts, temporary)
        run = read(temporary)
        differences = {name: _difference(part, partial(run, name)) for name, part in parts.items()}
        for name, difference in differences.items():
            if not difference <= TOLERANCE:
                raise UserError(f"The exported {name} is off by {difference:.1e}: nothing is kept.")
    return differences


def _in_float32(model):
    """The model, or where it computes in bfloat16 a copy of it that does not."""
    if model.settings.precision == "float32":
        return model
    copy = type(model).from_config({**model.get_config(), "precision": "float32"})
    copy.set_weights(model.get_weights())
    return copy


def parts_of(model, format):
    """The parts of a model: a dict of `Part` by the name of the signature.

    `encoder` and `decoder`; `classifier` where the model classifies; these but for the decoder also for uint8
    images, with the ending `_uint8`; and `generator`, whose arguments depend on the format.
    """
    codes, classes = model.sample_prior(N_CHECKED, seed=0)
    labels = []
    if model.decodes_labels:
        rows = np.eye(model.n_classes)[classes]
        if model.attributes:
            rows = np.random.default_rng(0).integers(0, 2, rows.shape)
        labels = [rows.astype(np.float32)]
    images = model.decode(codes, *labels)

    def decoder(codes, *labels):
        return {"images": model.final_decoder(tf.concat([codes, *labels], axis=1))}

    def encoder(images):
        return {"codes": model.code(to_unit_interval(images))}

    def classifier(images):
        return {"probabilities": model.probabilities(to_unit_interval(images))}

    parts = {}
    readers = [("encoder", encoder, model.encode)]
    if hasattr(model, "classify"):
        readers.append(("classifier", classifier, model.classify))
    for name, function, method in readers:
        for ending, pictures in (("", images), ("_uint8", np.round(255 * images).astype(np.uint8))):
            spec = tf.TensorSpec((None, *model.image_shape), pictures.dtype, "images")
            parts[name + ending] = Part(function, [spec], [pictures], method(pictures))
    specs = [tf.TensorSpec((None, model.n_z), tf.float32, "codes")]
    specs += [tf.TensorSpec((None, model.n_classes), tf.float32, "labels") for _ in labels]
    parts["decoder"] = Part(decoder, specs, [codes, *labels], images)
    make_generator = _drawing_generator if format == "saved_model" else _keeping_generator
    parts["generator"] = make_generator(model, decoder, labels)
    return parts


def _drawing_generator(model, decoder, rows):
    """What `model.generate` does, of (count, seed) and, where the model has labels, a label; below 0 for any.

    A decoder that sees attributes takes rows of them, and as many samples, in the place of count.
    """

    def generator(count_or_rows, seed, label=-1):
        count = tf.shape(count_or_rows)[0] if model.attributes and rows else count_or_rows
        codes, labels = model.prior_samples(count, seed, label)
        if not rows:
            return decoder(codes)
        return decoder(codes, count_or_rows if model.attributes else model.label_rows(labels))

    scalars = {name: tf.TensorSpec((), tf.int32, name) for name in ("count", "seed", "label")}
    if model.attributes and rows:
        specs = [tf.TensorSpec((None, model.n_classes), tf.float32, "labels"), scalars["seed"]]
        expected = model.decode(model.sample_prior(N_CHECKED, seed=3)[0], *rows)
        return Part(generator, specs, [*rows, np.int32(3)], expected)
    if model.has_labels:
        examples = [np.int32(N_CHECKED), np.int32(3), np.int32(0)]
        return Part(generator, list(scalars.values()), examples, model.generate(N_CHECKED, 0, seed=3))
    specs = [scalars["count"], scalars["seed"]]
    return Part(generator, specs, [np.int32(N_CHECKED), np.int32(3)], model.generate(N_CHECKED, seed=3))


def _keeping_generator(model, decoder, rows):
    """Samples of the prior by their numbers, int64 (N,), of `N_KEPT` in all; labels (N,) choose among theirs.

    A decoder that sees attributes takes rows (N, K) of them.
    """
    places = range(model.n_classes) if model.labels_have_places else [None]
    per_place = N_KEPT // len(places)
    kept = np.concatenate([model.sample_prior(per_place, label, seed=0)[0] for label in places])

    def generator(numbers, *labels):
        indices = tf.math.floormod(numbers, per_place)
        if model.labels_have_places:
            indices += per_place * labels[0]
        seen = [labels[0] if model.attributes else model.label_rows(labels[0])] if rows else []
        return decoder(tf.gather(tf.constant(kept), indices), *seen)

    numbers = np.arange(N_CHECKED)
    specs, examples, indices = [tf.TensorSpec((None,), tf.int64, "numbers")], [numbers], numbers % per_place
    if model.attributes and rows:
        specs.append(tf.TensorSpec((None, model.n_classes), tf.float32, "labels"))
        examples += rows
    elif model.has_labels:
        classes = numbers % model.n_classes
        specs.append(tf.TensorSpec((None,), tf.int64, "labels"))
        examples.append(classes)
        indices = indices + per_place * classes * model.labels_have_places
    seen = examples[1:] if rows else []
    return Part(generator, specs, examples, model.decode(kept[indices], *seen))


def _difference(part, run):
    """Largest difference from what is expected, over its scale, for all examples and for one alone.

    Args:
        run: function of a dict of arrays by the names of the inputs; returns an array.
    """
    names = [spec.name for spec in part.inputs]
    outputs = run(dict(zip(names, part.examples, strict=True)))
    scale = max(1.0, float(np.abs(part.expected).max()))
    if any(np.ndim(example) == 0 for example in part.examples):  # a number of samples has no first one
        return float(np.abs(outputs - part.expected).max()) / scale
    first = run({name: example[:1] for name, example in zip(names, part.examples, strict=True)})
    both, expected = np.concatenate([outputs, first]), np.concatenate([part.expected, part.expected[:1]])
    return float(np.abs(both - expected).max()) / scale


def _write_saved_model(parts, folder):
    archive = keras.export.ExportArchive()
    for name, part in parts.items():
        archive.add_endpoint(name, part.function, input_signature=part.inputs)
    archive.write_out(str(folder), verbose=False)


def _read_saved_model(folder):
    saved = tf.saved_model.load(str(folder))

    def run(name, inputs):
        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        (output,) = saved.signatures[name](**tensors).values()
        return output.numpy()

    return run


def _write_onnx(parts, folder):
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    for name, part in parts.items():
        function = tf.function(part.function, input_signature=part.inputs, autograph=False)
        tf2onnx.convert.from_function(
            function, input_signature=part.inputs, opset=OPSET, output_path=str(folder / f"{name}.onnx")
        )


def _read_onnx(folder):
    import onnxruntime

    def run(name, inputs):
        path = str(folder / f"{name}.onnx")
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)[0]

    return run


OPSET = 17
WRITERS = {"saved_model": (_write_saved_model, _read_saved_model), "onnx": (_write_onnx, _read_onnx)}
