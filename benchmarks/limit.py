"""The fastest that a train step can be on this machine: its operations and bytes over measured rates."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from benchmarks.operations import optimizer_bytes, step_flops

MATRIX_SIDE = 3072
TRIAD_BYTES = 2**28  # per array: far more than the caches hold
CHUNK = 2**15  # floats; a thread's intermediate result stays in its core's own cache


class Limit:
    """Measures the rates, and says how long steps would take at them."""

    def __init__(self, case, data, directory):
        step = (case.config(), data.image_shape, data.n_classes)
        self.flops = sum(step_flops(*step).values())
        self.bytes = optimizer_bytes(*step)
        self.batch_size = case.config().batch_size
        self.side, triad_bytes = (256, 2**20) if case.tiny else (MATRIX_SIDE, TRIAD_BYTES)
        self.matrix = tf.random.stateless_normal([self.side, self.side], [0, 0])
        self.a, self.b = (np.ones(triad_bytes // 4, np.float32) for _ in range(2))
        self.threads = len(os.sched_getaffinity(0))
        self.pool = ThreadPoolExecutor(self.threads)
        self.run(1)

    def run(self, steps):
        flops, bandwidth = self.matrix_product_rate(), self.bandwidth()
        return {
            "seconds": steps * (self.flops / flops + self.bytes / bandwidth),
            "images": steps * self.batch_size,
            "flops_per_second": flops,
            "bytes_per_second": bandwidth,
        }

    def matrix_product_rate(self, repeats=3):
        """Operations per second of a large float32 matrix product: the best of a few."""
        return 2 * self.side**3 / min(self._seconds(self._product) for _ in range(repeats))

    def bandwidth(self, repeats=3):
        """Bytes per second that all cores together read and write in a += s * b: the best of a few.

        In place, as Adam works: of an array that is only written, each line would be read first too.
        """
        return 3 * self.a.nbytes / min(self._seconds(self._triad) for _ in range(repeats))

    def _product(self):
        tf.linalg.matmul(self.matrix, self.matrix).numpy()

    def _triad(self):
        parts = zip(np.array_split(self.a, self.threads), np.array_split(self.b, self.threads), strict=True)
        list(self.pool.map(add_scaled, parts))

    @staticmethod
    def _seconds(function):
        start = time.perf_counter()
        function()
        return time.perf_counter() - start


def add_scaled(arrays):
    """A += s * b, in chunks whose product stays in the cache; numpy releases the GIL for each."""
    a, b = arrays
    product = np.empty(CHUNK, np.float32)
    for start in range(0, len(a), CHUNK):
        part = b[start : start + CHUNK]
        np.multiply(part, np.float32(1e-6), out=product[: len(part)])
        a[start : start + CHUNK] += product[: len(part)]
