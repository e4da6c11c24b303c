"""The record that every data set ends as."""

import dataclasses
import functools
import zlib

import numpy as np

SPLITS = ("train", "validation", "test")
BLOCK = 1000  # images that are looked at together, where there may be more than the memory holds


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Images and labels in three disjoint splits.

    Attributes:
        name: e.g. "mnist".
        source: where the data came from, for people.
        train_images, validation_images, test_images: uint8 (N, H, W, C), arrays or `StoredImages`.
        train_labels, validation_labels, test_labels: uint8 (N,), one class per image, from 0 to
            n_classes - 1; or uint8 (N, n_classes), attributes of which each image has any number, in {0, 1}.
        n_classes: number of classes or attributes K.
        label_names: names of the K classes or attributes; () where they are just numbers.
        folder: where the files lie; "" where there are none.
        note: what a reader of the pictures must know, e.g. that this is a substitute; often empty.
        known_checksum: the `checksum`, where it was noted when the images were stored; else "".
    """

    name: str
    source: str
    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    n_classes: int = 10
    note: str = ""
    label_names: tuple = ()
    folder: str = ""
    known_checksum: str = ""

    @classmethod
    def from_official_split(cls, name, source, train, test, **kwargs):
        """Holds out a validation split: a twelfth of the training images, 5,000 of MNIST's 60,000.

        Args:
            train, test: pairs (images, labels) as in the attributes.
        """
        images, labels = train
        held_out = stratified_choice(labels, len(labels) // 12)
        return cls(
            name,
            source,
            images[~held_out],
            labels[~held_out],
            images[held_out],
            labels[held_out],
            *test,
            **kwargs,
        )

    def with_images(self, images):
        """The same with other images: those of training, validation and test."""
        return dataclasses.replace(self, **{f"{s}_images": i for s, i in zip(SPLITS, images, strict=True)})

    @property
    def stored(self):
        """Whether the images are on the disk and are read as they are needed."""
        return not isinstance(self.train_images, np.ndarray)

    @property
    def n_bytes(self):
        """Of all images."""
        return sum(getattr(self, f"{split}_images").nbytes for split in SPLITS)

    def held(self):
        """The same with all images in memory."""
        return self.with_images([getattr(self, f"{split}_images")[:] for split in SPLITS])

    @property
    def has_attributes(self):
        """Whether the labels are attributes (N, K) rather than classes (N,)."""
        return self.train_labels.ndim == 2

    @property
    def image_shape(self):
        """(H, W, C)."""
        return self.train_images.shape[1:]

    def describe(self):
        """What config.json and metrics.json say about the data."""
        return {
            "name": self.name,
            "source": self.source,
            "note": self.note,
            "image_shape": list(self.image_shape),
            "n_classes": self.n_classes,
            **({"named_labels": len(self.label_names)} if self.label_names else {}),
            "train_images": len(self.train_images),
            "validation_images": len(self.validation_images),
            "test_images": len(self.test_images),
            "checksum": self.checksum,
        }

    @functools.cached_property
    def checksum(self):
        """CRC-32 of all images and labels in their order, as eight hexadecimal digits."""
        if self.known_checksum:
            return self.known_checksum
        crc = 0
        for split in SPLITS:
            for part in (getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")):
                for start in range(0, len(part), BLOCK):
                    crc = zlib.crc32(np.ascontiguousarray(part[start : start + BLOCK]), crc)
        return f"{crc:08x}"


def stratified_choice(labels, count):
    """A mask (N,) of `count` items in which every class has its share.

    It takes evenly spaced items of the list sorted by class: the same ones every time, so that runs
    with different seeds are tested on the same images.
    """
    by_class = np.argsort(labels, kind="stable")
    mask = np.zeros(len(labels), bool)
    mask[by_class[np.arange(count) * len(labels) // count]] = True
    return mask


def balanced_choice(labels, count, seed):
    """Indices of `count` random items, sorted, of which every class has as equal a number as it can.

    Args:
        labels: int (N,).
        seed: int that the choice depends on.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    rank_in_class = np.empty(len(labels), int)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        rank_in_class[own] = np.arange(len(own))
    # Round by round, each class gives one more item; the shuffled order decides within a round.
    rounds = order[np.argsort(rank_in_class[order], kind="stable")]
    return np.sort(rounds[:count])
