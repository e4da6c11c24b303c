"""Data sets. To add one: a function that returns an `ImageData`, and a line here.

Each function takes the list of folders to search, and those in `RESIZED` the size of the images; `tfds:NAME`
is passed on as its `name`. What it does not find or cannot read is a `UserError`. Where the images may fit no
memory, the function returns an `ImageSource`.
"""

import os

MAX_PIXELS = 4 * 10**7  # of one picture: 120 MB when decoded
# OpenCV reads its limit when it is loaded, so it is set before any reader can do so; its own is 3 GB.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

DATASETS = {
    "auto": "data.loading:load_auto",
    "mnist": "data.loading:load_mnist",
    "fashion_mnist": "data.loading:load_fashion_mnist",
    "cifar10": "data.loading:load_cifar10",
    "svhn": "data.svhn:load_svhn",
    "digits": "data.loading:load_digits",
    "celeb_a": "data.celeba:load_celeb_a",
    "folder": "data.image_folder:load_folder",
    "npz": "data.own:load_npz",
    "tfds": "data.own:load_tfds",
    "prepared": "data.shards:load_prepared",
}
# As what a set of TFDS is asked for.
TFDS_NAME = r"tfds:[a-z]\w*(/\w[\w.-]*)?"

# Data sets of large images, which are cut to squares and resized to --image_size.
RESIZED = {"celeb_a", "folder", "tfds"}

# Data sets with several attributes per image instead of one class.
ATTRIBUTE_DATASETS = {"celeb_a"}

# Of data whose files hold numbers alone.
LABEL_NAMES = {
    "fashion_mnist": (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}
