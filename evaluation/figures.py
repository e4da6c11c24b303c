"""The figures of metrics.json, measured on the whole test split without noise or dropout."""

import dataclasses
import functools

import numpy as np

from evaluation.likelihood import log_likelihood

N_PROJECTIONS = 200
N_FLOOR_PAIRS = 5
N_SWAPPED = 2000  # test images whose styles are decoded with every label
N_GENERATED = 1000  # samples of the prior for every label
MAX_DECODED = 60_000  # images for each of the two: with many clusters, fewer of each
N_SAMPLES = 100  # that pictures show


@dataclasses.dataclass(frozen=True)
class Trained:
    """What is measured.

    Attributes:
        model: an `AdversarialAutoencoder`.
        data: an `ImageData`.
        codes: float32 (N, n_z), the codes of the test images.
        reader: a `LabelReader` of the data, or None.
        likelihood_samples: how many samples the log-likelihood is measured with; 0 to leave it out.
    """

    model: object
    data: object
    codes: np.ndarray
    reader: object = None
    likelihood_samples: int = 0

    def prior_sample(self, index):
        """As many samples of the prior as there are codes, other ones for every index from 0."""
        # Seeds below 0 are never used by `generate`.
        return self.model.sample_prior(len(self.codes), seed=-1 - index)[0]

    @functools.cached_property
    def validation_probabilities(self):
        """`classify` of the validation images, float (N, K); None of a model that does not classify."""
        return self.model.classify(self.data.validation_images) if hasattr(self.model, "classify") else None


def evaluate(model, data, codes, reader=None, likelihood_samples=0):
    """Measures a trained model: a dict of floats, those of all `FIGURES`. Arguments as of `Trained`."""
    trained = Trained(model, data, codes, reader, likelihood_samples)
    return {name: value for figures in FIGURES for name, value in figures(trained).items()}


def of_reconstruction(of):
    """`test_reconstruction_mse`: mean over images and pixels, [0, 1] scale."""
    error = reconstruction_mse(of.model, of.data.test_images, of.data.test_labels)
    return {"test_reconstruction_mse": error}


def of_prior(of):
    """`prior_distance` of the test codes, of as many training codes, and of two samples of the prior."""
    seed = of.model.settings.seed
    floors = [
        sliced_wasserstein(of.prior_sample(2 * i + 1), of.prior_sample(2 * i + 2), seed)
        for i in range(N_FLOOR_PAIRS)
    ]
    sample, train = of.prior_sample(0), random_codes(of.model, of.data.train_images, len(of.codes), seed)
    return {
        "prior_distance": sliced_wasserstein(of.codes, sample, seed),
        "train_prior_distance": sliced_wasserstein(train, sample[: len(train)], seed),
        "prior_distance_floor": float(np.mean(floors)),
    }


def of_classification(of):
    """Of models that classify: errors in percent, and entropies of the test predictions in nats."""
    if (validation := of.validation_probabilities) is None:
        return {}
    probabilities = of.model.classify(of.data.test_images)
    clusters = labels_of_clusters(of.model, validation, of.data.validation_labels)
    of_mean, mean = label_entropies(probabilities)
    chosen = float(len(np.unique(predicted_labels(probabilities))))
    return {
        **({} if clusters is None else {"chosen_clusters": chosen}),
        "test_error_percent": error_percent(probabilities, of.data.test_labels, clusters),
        "validation_error_percent": error_percent(validation, of.data.validation_labels, clusters),
        "entropy_of_mean_prediction": of_mean,
        "mean_entropy_of_predictions": mean,
    }


def of_labels(of):
    """With a reader: how often the decoder obeys, see `label_figures`."""
    if not of.reader:
        return {}
    shown = labels_shown(of.model, of.validation_probabilities, of.data.validation_labels)
    styles = evenly(of.codes, per_label(N_SWAPPED, len(shown)))
    return label_figures(of.model, styles, shown, of.reader)


def of_components(of):
    """Where labels have their own part of the prior: `test_component_accuracy`, its ceiling, a distance."""
    if of.model.finds_clusters or not of.model.labels_have_places:
        return {}
    labels, seed = of.data.test_labels, of.model.settings.seed
    drawn = of.model.prior.sample(len(of.codes), [seed, -1], labels).numpy()
    return {
        # Against codes drawn for the test labels, whose classes are not equally frequent.
        "prior_distance_given_labels": sliced_wasserstein(of.codes, drawn, seed),
        "test_component_accuracy": component_accuracy(of.model.prior, of.codes, labels),
        # What codes that follow the prior exactly would reach: its components overlap.
        "component_accuracy_ceiling": component_accuracy(of.model.prior, drawn, labels),
    }


def of_likelihood(of):
    """--likelihood: `log_likelihood` of the test images in nats, see `evaluation.likelihood`."""
    return log_likelihood(of.model, of.data, of.likelihood_samples) if of.likelihood_samples else {}


# To add figures to metrics.json: a function of a `Trained` that returns a dict of floats, and a line here.
FIGURES = [of_reconstruction, of_prior, of_classification, of_labels, of_components, of_likelihood]


def labels_shown(model, probabilities, labels):
    """What images decoded with a label, or of a cluster, are to show: a dict of ints.

    A label shows itself, a cluster the label that it gets. Clusters without any of the images are left out.

    Args:
        model: whose decoder sees labels or clusters.
        probabilities: of the clusters, for validation images, float (N, K); of labels they may be None.
        labels: of these images, int (N,).
    """
    if not model.finds_clusters:
        return {label: label for label in range(model.n_classes)}
    names = labels_of_clusters(model, probabilities, labels)
    return {int(cluster): int(names[cluster]) for cluster in np.unique(predicted_labels(probabilities))}


def label_figures(model, styles, shown, reader):
    """How often a reader sees the label that the decoder was given, per label and over all.

    Args:
        model: whose decoder sees labels.
        styles: float32 (N, n_z), of images; each is decoded with every label.
        shown: what `labels_shown` returned.
        reader: a `LabelReader`.

    Returns:
        dict: `label_swap_accuracy` of these images, `generated_label_accuracy` of up to N_GENERATED samples
        of the prior for each label or cluster, `..._worst` of the label that has the smallest share of each,
        and the `reader_test_error_percent` on real images.
    """
    swapped = labels_obeyed(model, styles, shown, reader)
    count = per_label(N_GENERATED, len(shown))
    # Seeds below 0 are never used by `generate`.
    generated = [
        reader.accuracy(model.generate(count, given, seed=-100 - given), label)
        for given, label in shown.items()
    ]
    return {
        "label_swap_accuracy": float(np.mean(swapped)),
        "label_swap_accuracy_worst": min(swapped),
        "generated_label_accuracy": float(np.mean(generated)),
        "generated_label_accuracy_worst": min(generated),
        "reader_test_error_percent": reader.test_error_percent,
    }


def per_label(count, n_labels):
    """So many images for each label, or fewer, 1 at least, where all would have more than `MAX_DECODED`."""
    return min(count, max(MAX_DECODED // n_labels, 1))


def labels_obeyed(model, styles, shown, reader):
    """Share of the styles (N, n_z) that a reader sees decoded as each label, a list; see `label_figures`."""
    return [
        reader.accuracy(model.decode(styles, np.full(len(styles), given)), label)
        for given, label in shown.items()
    ]


def evenly(items, count):
    """At most `count` of the items, evenly spaced over all of them, which may be sorted by class."""
    return items[np.linspace(0, len(items) - 1, min(len(items), count)).astype(int)]


def decode_samples(model, codes, data):
    """Decoded codes, each with one of the labels in turn where the decoder sees one.

    Clusters are drawn, as not all may be in use. Attributes are those of the first test images.
    """
    if not model.decodes_labels:
        return model.decode(codes)
    if model.attributes:
        return model.decode(codes, np.resize(data.test_labels, (len(codes), model.n_classes)))
    if model.finds_clusters:
        return model.decode(codes, model.sample_prior(len(codes), seed=0)[1])
    return model.decode(codes, np.arange(len(codes)) % model.n_classes)


def fixed_codes(model):
    """The codes of samples.png and of the previews: the same samples of the prior every time, (M, n_z)."""
    return model.sample_prior(N_SAMPLES, seed=0)[0]


def axes_limit(model):
    """Half the side of the square that coding-space pictures show: the prior's reach and a margin."""
    return 1.15 * float(np.abs(model.sample_prior(10_000, seed=-1)[0]).max())


def labels_of_clusters(model, probabilities, labels):
    """The label that each cluster gets, int (K,); None of a model whose labels are no clusters.

    It is that of the image which belongs to the cluster most surely (paper, section 6).

    Args:
        probabilities: of the clusters, for validation images, float (N, K).
        labels: of these images, int (N,).
    """
    return labels[probabilities.argmax(axis=0)] if model.finds_clusters else None


def predicted_labels(probabilities, clusters=None):
    """The most probable label of (N, K) of each image, or the label of its most probable cluster: int (N,).

    Args:
        clusters: what `labels_of_clusters` returned.
    """
    predictions = probabilities.argmax(axis=1)
    return predictions if clusters is None else clusters[predictions]


def error_percent(probabilities, labels, clusters=None):
    """Share of the images that `predicted_labels` gives another label than their own (N,), in percent."""
    return 100 * float(np.mean(predicted_labels(probabilities, clusters) != labels))


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


def random_codes(model, images, count, seed):
    """Codes (count, n_z) of images drawn without repetition, at most of all of them."""
    drawn = np.random.default_rng(seed).choice(len(images), min(count, len(images)), replace=False)
    slices = (np.sort(drawn[start : start + 1000]) for start in range(0, len(drawn), 1000))
    return np.concatenate([model.encode(images[numbers]) for numbers in slices])


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
