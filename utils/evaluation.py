"""The figures of metrics.json, measured on the whole test split without noise or dropout."""

import numpy as np

N_PROJECTIONS = 200
N_FLOOR_PAIRS = 5
N_SWAPPED = 2000  # test images whose styles are decoded with every label
N_GENERATED = 1000  # samples of the prior for every label


def evaluate(model, data, codes, reader=None):
    """Measures a trained model.

    Args:
        model: an `AdversarialAutoencoder`.
        data: an `ImageData`.
        codes: float32 (N, n_z), the codes of the test images.
        reader: a `LabelReader` of the data, where the decoder sees labels.

    Returns:
        dict of floats: `test_reconstruction_mse` (mean over images and pixels, [0, 1] scale),
        `prior_distance`, `prior_distance_floor` and, where labels have their own part of the prior,
        `test_component_accuracy` with its ceiling and `prior_distance_given_labels`; of models that
        classify, the errors of test and validation split and the entropies of the test predictions (nats);
        with a reader, those of `label_figures`.
    """
    count = len(codes)

    def prior_sample(index):
        # Seeds below 0 are never used by `generate`.
        return model.sample_prior(count, seed=-1 - index)[0]

    floors = [
        sliced_wasserstein(prior_sample(2 * i + 1), prior_sample(2 * i + 2), model.seed)
        for i in range(N_FLOOR_PAIRS)
    ]
    metrics = {
        "test_reconstruction_mse": reconstruction_mse(model, data.test_images, data.test_labels),
        "prior_distance": sliced_wasserstein(codes, prior_sample(0), model.seed),
        "prior_distance_floor": float(np.mean(floors)),
    }
    if hasattr(model, "classify"):
        probabilities = model.classify(data.test_images)
        validation = model.classify(data.validation_images)
        of_mean, mean = label_entropies(probabilities)
        metrics |= {
            "test_error_percent": error_percent(probabilities, data.test_labels),
            "validation_error_percent": error_percent(validation, data.validation_labels),
            "entropy_of_mean_prediction": of_mean,
            "mean_entropy_of_predictions": mean,
        }
    if reader:
        metrics |= label_figures(model, evenly(codes, N_SWAPPED), reader)
    if model.labels_have_places:
        labels = data.test_labels
        drawn = model.prior.sample(count, [model.seed, -1], labels).numpy()
        metrics |= {
            # Against codes drawn for the test labels, whose classes are not equally frequent.
            "prior_distance_given_labels": sliced_wasserstein(codes, drawn, model.seed),
            "test_component_accuracy": component_accuracy(model.prior, codes, labels),
            # What codes that follow the prior exactly would reach: its components overlap.
            "component_accuracy_ceiling": component_accuracy(model.prior, drawn, labels),
        }
    return metrics


def label_figures(model, styles, reader):
    """How often a reader sees the label that the decoder was given, per label and over all.

    Args:
        model: whose decoder sees labels.
        styles: float32 (N, n_z), of images; each is decoded with every label.
        reader: a `LabelReader`.

    Returns:
        dict: `label_swap_accuracy` of these images, `generated_label_accuracy` of N_GENERATED samples of the
        prior for each label, `..._worst` of the label that has the smallest share of each, and the
        `reader_test_error_percent` on real images.
    """
    labels = range(model.n_classes)
    swapped = [label_obeyed(model, styles, label, reader) for label in labels]
    # Seeds below 0 are never used by `generate`.
    generated = [
        reader.accuracy(model.generate(N_GENERATED, label, seed=-100 - label), label) for label in labels
    ]
    return {
        "label_swap_accuracy": float(np.mean(swapped)),
        "label_swap_accuracy_worst": min(swapped),
        "generated_label_accuracy": float(np.mean(generated)),
        "generated_label_accuracy_worst": min(generated),
        "reader_test_error_percent": reader.test_error_percent,
    }


def label_obeyed(model, styles, label, reader):
    """Share of the styles (N, n_z) that a reader sees decoded as a label."""
    return reader.accuracy(model.decode(styles, np.full(len(styles), label)), label)


def evenly(items, count):
    """At most `count` of the items, evenly spaced over all of them, which may be sorted by class."""
    return items[np.linspace(0, len(items) - 1, min(len(items), count)).astype(int)]


def decode_samples(model, codes, data):
    """Decoded codes, each with one of the labels in turn where the decoder sees one.

    Attributes are those of the first test images.
    """
    if not model.decodes_labels:
        return model.decode(codes)
    if model.attributes:
        return model.decode(codes, np.resize(data.test_labels, (len(codes), model.n_classes)))
    return model.decode(codes, np.arange(len(codes)) % model.n_classes)


def error_percent(probabilities, labels):
    """Share of the images whose most probable label, of (N, K), is not their own (N,), in percent."""
    return 100 * float(np.mean(probabilities.argmax(axis=1) != labels))


def label_entropies(probabilities):
    """Entropy of the mean prediction and mean entropy of single predictions (N, K), in nats.

    Where the labels follow the uniform categorical prior, the first is ln K and the second 0.
    """

    def entropy(p):
        return -np.sum(p * np.log(np.maximum(p, 1e-30)), axis=-1)

    probabilities = probabilities.astype(np.float64)
    return float(entropy(probabilities.mean(axis=0))), float(entropy(probabilities).mean())


def reconstruction_mse(model, images, labels):
    """Mean squared error of the reconstructions over all images and pixels, on the [0, 1] scale."""
    total = 0.0
    for start in range(0, len(images), 1000):
        chosen = slice(start, start + 1000)
        batch = images[chosen]
        clean = batch.astype(np.float32) / 255
        total += np.square(model.reconstruct(batch, labels[chosen]) - clean).sum(dtype=np.float64)
    return float(total / images.size)


def component_accuracy(prior, codes, labels):
    """Share of codes that lie in the component or region of the prior that belongs to their label."""
    return float(np.mean(prior.classify(codes).numpy() == labels))


def sliced_wasserstein(a, b, seed):
    """Mean 1-Wasserstein distance between two equally large samples, projected on random directions.

    Args:
        a, b: float arrays (N, n_z).
        seed: of the N_PROJECTIONS directions.
    """
    directions = np.random.default_rng(seed).normal(size=(N_PROJECTIONS, a.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # In one dimension the distance is the mean difference of the sorted samples.
    return float(np.mean([np.abs(np.sort(a @ d) - np.sort(b @ d)).mean() for d in directions]))
