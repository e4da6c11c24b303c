"""Data sets. To add one: a function that returns an `ImageData`, and a line here.

Each function takes the list of folders to search and returns None where it finds nothing; what it
finds but cannot read is a `UserError`.
"""

DATASETS = {
    "auto": "data.loading:load_auto",
    "mnist": "data.loading:load_mnist",
    "fashion_mnist": "data.loading:load_fashion_mnist",
    "cifar10": "data.loading:load_cifar10",
    "digits": "data.loading:load_digits",
}
