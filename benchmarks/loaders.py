"""Loaders for data that fits no memory, against each other: `python -m benchmarks.loaders [--side 64]`.

Each yields shuffled batches of uint8 images as tensors of a `tf.data.Dataset`, as the train step takes them.
Grain is no part of the requirements: `pip install grain array_record` first.
"""

import argparse
import contextlib
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from main import start_tensorflow

BATCH = 128
SHUFFLE_BUFFER = 10_000  # records, of tf.data, which knows no shuffle of a whole set on the disk


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a loader's name")
    options = parser.parse_args()
    start_tensorflow()
    shape = (options.side, options.side, 3)
    print(f"{options.images} images {shape}, batches of {BATCH}, {os.cpu_count()} cores, median of rounds")
    print("| loader | images/s | processor ms a batch | first batch, s | the batch after half an epoch, s |")
    print("|---|---|---|---|---|")
    Path("build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="loaders_", dir="build") as folder:
        write(Path(folder), options.images, shape)
        rows = {name: [] for name in LOADERS if options.only in name}
        for _ in range(options.rounds):  # in turn, as the machine may be busy otherwise
            for name in rows:
                rows[name].append(measured(LOADERS[name], Path(folder), options, shape))
        for name, measurements in rows.items():
            speed, processor, first, later = np.median(measurements, axis=0)
            print(f"| {name} | {speed:,.0f} | {processor:.2f} | {first:.2f} | {later:.2f} |", flush=True)


def measured(loader, folder, options, shape):
    """Images a second, processor seconds a batch in ms, and the seconds to a first and to a later batch."""
    half = options.images // BATCH // 2
    begin = time.perf_counter()
    later = iter(loader(folder, options.images, shape, half))
    next(later)
    seconds_later = time.perf_counter() - begin
    del later
    begin = time.perf_counter()
    batches = iter(loader(folder, options.images, shape, 0))
    next(batches)
    seconds_first = time.perf_counter() - begin
    begin, used = time.perf_counter(), processor_seconds()
    for _ in range(options.batches):
        next(batches)
    seconds = time.perf_counter() - begin
    used = processor_seconds() - used
    return options.batches * BATCH / seconds, 1e3 * used / options.batches, seconds_first, seconds_later


def processor_seconds():
    """Of this process, and of those workers of it that are still there."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total, ticks = own.ru_utime + own.ru_stime, os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def write(folder, count, shape):
    """The same random images as fixed records, as ArrayRecord and as TFRecord."""
    import tensorflow as tf
    from array_record.python.array_record_module import ArrayRecordWriter

    rng = np.random.default_rng(0)
    array_record = ArrayRecordWriter(str(folder / "a.array_record"), "group_size:1,uncompressed")
    with open(folder / "a.bin", "wb") as file, tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as records:
        for start in range(0, count, 1000):
            for image in rng.integers(0, 256, (min(1000, count - start), *shape), np.uint8):
                content = image.tobytes()
                file.write(content)
                records.write(content)
                array_record.write(content)
    array_record.close()


def order(count, first):
    """Batches of indices, from batch `first` on: the order of epoch after epoch."""
    from data.pipeline import training_batches

    return training_batches(count, BATCH, 0, first).map(lambda batch: batch["images"])


def memory_mapped(folder, count, shape, first):
    """Fixed records, mapped into memory."""
    images = np.memmap(folder / "a.bin", np.uint8, "r").reshape(-1, *shape)
    return read(order(count, first), lambda chosen: images[chosen], shape)


def positioned_reads(folder, count, shape, first):
    """Fixed records, each read from its place."""
    descriptor, size = os.open(folder / "a.bin", os.O_RDONLY), int(np.prod(shape))

    def take(chosen):
        images = np.empty((len(chosen), size), np.uint8)
        for row, index in zip(images, chosen.tolist(), strict=True):
            os.preadv(descriptor, [row], index * size)
        return images.reshape(-1, *shape)

    return read(order(count, first), take, shape)


def read(indices, take, shape):
    """The images of batches of indices, taken by a function of an index array."""
    import tensorflow as tf

    def images(chosen):
        batch = tf.numpy_function(take, [chosen], tf.uint8)
        return tf.ensure_shape(batch, (BATCH, *shape))

    return indices.map(images).prefetch(4)


def grain(folder, count, shape, first, workers=0):
    """Grain over ArrayRecord, in threads or worker processes."""
    import tensorflow as tf
    from grain import python as grain

    source = grain.ArrayRecordDataSource([str(folder / "a.array_record")])
    data = grain.MapDataset.source(source).seed(0).shuffle().repeat()
    data = data.map(lambda content: np.frombuffer(content, np.uint8).reshape(shape)).batch(BATCH)
    data = data[first:] if first else data
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    batches = data.to_iter_dataset(options)
    if workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=4))
    signature = tf.TensorSpec((BATCH, *shape), tf.uint8)
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature).prefetch(4)


def grain_processes(folder, count, shape, first):
    """Grain with one worker process."""
    return grain(folder, count, shape, first, workers=1)


def tf_data(folder, count, shape, first):
    """TFRecord, shuffled within a buffer."""
    import tensorflow as tf

    records = tf.data.TFRecordDataset(str(folder / "a.tfrecord")).shuffle(SHUFFLE_BUFFER, seed=0).repeat()
    # Only by going through what lies before does it find its place.
    batches = records.batch(BATCH, drop_remainder=True).skip(first)
    return batches.map(lambda batch: tf.reshape(tf.io.decode_raw(batch, tf.uint8), (BATCH, *shape))).prefetch(
        4
    )


LOADERS = {
    "fixed records, memory-mapped": memory_mapped,
    "fixed records, read by position": positioned_reads,
    "Grain, ArrayRecord, 2 threads": grain,
    "Grain, ArrayRecord, a process": grain_processes,
    "tf.data, TFRecord, buffer of 10,000": tf_data,
}

if __name__ == "__main__":
    main()
