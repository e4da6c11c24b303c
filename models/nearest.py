"""The nearest of many items, by plain matrix products in blocks."""

import math

import numpy as np

# Compared at a time: 40 MB of distances, and 67 MB of items.
QUERIES, ITEMS, NUMBERS = 1000, 10_000, 2**24


def nearest(queries, items, count=1):
    """The nearest items of each query, by Euclidean distance.

    Args:
        queries: float (Q, ...).
        items: (M, ...), as the queries, or uint8, which stands for float in [0, 1].
        count: how many of them, at most M.

    Returns:
        indices int (Q, count), the nearest first, and distances float32 (Q, count).
    """
    starts = range(0, max(len(queries), 1), QUERIES)
    parts = [_nearest(queries[start : start + QUERIES], items, count) for start in starts]
    indices, distances = (np.concatenate(part) for part in zip(*parts, strict=True))
    return indices, distances


def _nearest(queries, items, count):
    size = math.prod(items.shape[1:])
    queries = np.asarray(queries, np.float32).reshape(len(queries), size)
    indices = np.empty((len(queries), 0), int)
    # Squared distances but for the square of the query itself, which all of its distances have.
    distances = np.empty((len(queries), 0), np.float32)
    n_items = min(ITEMS, max(1, NUMBERS // size))
    for start in range(0, len(items), n_items):
        block = items[start : start + n_items]
        scale = np.float32(255 if block.dtype == np.uint8 else 1)
        block = block.reshape(len(block), size).astype(np.float32) / scale
        of_block = np.square(block).sum(axis=1) - 2 * queries @ block.T
        numbers = np.broadcast_to(np.arange(start, start + len(block)), of_block.shape)
        distances = np.concatenate([distances, of_block], axis=1)
        indices = np.concatenate([indices, numbers], axis=1)
        best = np.argpartition(distances, min(count, distances.shape[1]) - 1, axis=1)[:, :count]
        distances, indices = (np.take_along_axis(each, best, axis=1) for each in (distances, indices))
    order = np.argsort(distances, axis=1, kind="stable")
    distances, indices = (np.take_along_axis(each, order, axis=1) for each in (distances, indices))
    squared = distances + np.square(queries).sum(axis=1, keepdims=True)
    return indices, np.sqrt(np.maximum(squared, 0))
