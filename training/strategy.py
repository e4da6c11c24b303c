"""On which devices a model is trained, and what each of them sees."""

import signal

import tensorflow as tf

from training.cluster import keep_freed_memory
from training.refusals import refuse_uneven
from utils.errors import UserError


def make_strategy(config, workers=None):
    """The `tf.distribute.Strategy` of a configuration; where there is one device, TensorFlow's default.

    Args:
        workers: a `Workers`, where there are several; all of them must be about to call this.

    Raises:
        UserError: if there are no two devices, or the images of a step do not divide among them.
    """
    if workers:
        strategy = multi_worker_strategy()
    else:
        # Two logical CPUs stand for two GPUs in the tests.
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if config.strategy == "mirrored" and len(devices) < 2:
            raise UserError(
                "--strategy mirrored needs two GPUs or more: leave it out to train on one device."
            )
        if config.strategy == "none" or len(devices) < 2:
            return tf.distribute.get_strategy()
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    if config.jit_compile == "on":
        raise UserError("--jit_compile on works on one device only: add --strategy none, or leave it out.")
    refuse_uneven(config, strategy.num_replicas_in_sync)
    return strategy


def multi_worker_strategy():
    """TensorFlow's, of the workers of TF_CONFIG; comes before anything that starts TensorFlow's devices."""
    keep_freed_memory()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    # It has taken SIGTERM for itself, past Python, and would no longer end the process.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
    return strategy


def shared_out(batches, strategy, read=None):
    """The batches, of which every replica gets its share: of n replicas, the r-th gets rows r, r + n, ...

    So a replica's first half is its share of the batch's first half: the train step may split a batch.

    Args:
        batches: a `tf.data.Dataset` of any structure of tensors (B, ...), the same on all workers.
        read: what makes of such a data set of indices that of images, where they are on the disk; each worker
            reads its share alone.

    Returns:
        the same where there is one replica, else a `tf.distribute.DistributedDataset`.
    """
    n = strategy.num_replicas_in_sync
    read = read or (lambda batches: batches)
    if n == 1:
        return read(batches)

    def of_worker(context):
        local = n // context.num_input_pipelines
        first = local * context.input_pipeline_id

        def shares(batch):
            return tf.data.Dataset.from_tensor_slices(
                tf.nest.map_structure(
                    lambda rows: tf.stack([rows[first + i :: n] for i in range(local)]), batch
                )
            )

        return read(batches.flat_map(shares))

    return strategy.distribute_datasets_from_function(of_worker)


def summed(counts, strategy):
    """The sum of a list of whole numbers over all workers, each of which must call this."""
    total = strategy.reduce(tf.distribute.ReduceOp.SUM, tf.constant(counts, tf.int32), axis=None)
    return [int(count) for count in total]
