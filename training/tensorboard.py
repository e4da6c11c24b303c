"""What TensorBoard shows of a run."""

import os
import struct

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import summary_v2
from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata

from utils.files import atomic_path


class TensorBoard(keras.callbacks.Callback):
    """Writes scalars and code histograms after every epoch, and the previews as images.

    Args:
        directory: of the event files.
        images: uint8 (N, H, W, C) whose codes the histograms show.
        first_epoch: number of finished epochs; what the files hold of later ones is removed.
    """

    def __init__(self, directory, images, first_epoch):
        super().__init__()
        keep_events(directory, first_epoch)
        self.directory = directory
        self.writer = tf.summary.create_file_writer(str(directory))
        self.images = images

    def on_epoch_end(self, epoch, logs=None):
        codes = self.model.encode(self.images)
        with self.writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(name, value)
            tf.summary.histogram("codes", codes)
        self._flush()

    def add_scalars(self, figures, step):
        """Shows the figures of metrics.json, under `final/`."""
        with self.writer.as_default(step=step):
            for name, value in figures.items():
                tf.summary.scalar(f"final/{name}", value)
        self._flush()

    def add_flags(self, flags):
        """Shows flags, a dict of texts, numbers and truths by name, beside those of other runs: HPARAMS."""
        with self.writer.as_default():
            summary_v2.hparams(flags)
        self._flush()

    def add_picture(self, name, path, step):
        """Shows a PNG file, as it is: `tf.summary.image` would decode and compress it again."""
        png = path.read_bytes()
        size = struct.unpack(">II", png[16:24])  # width and height
        with self.writer.as_default(step=step):
            tf.summary.write(name, [*map(str, size), png], metadata=image_metadata(name, ""))
        self._flush()

    def _flush(self):
        self.writer.flush()
        # The writer itself does not notice that its file is gone.
        if not any(self.directory.glob(f"events.*.{os.getpid()}.*")):
            raise FileNotFoundError(f"the file of TensorBoard in {self.directory} has vanished")


def keep_events(directory, epoch):
    """Removes from TensorBoard's files what a run that goes on after an epoch will write again.

    That is everything of later epochs, and the flags, pictures and figures of the end of a shorter training.
    """

    def stays(event):
        value = event.summary.value[0] if event.summary.value else None
        if value and value.metadata.plugin_data.plugin_name == "hparams":
            return False
        if value and event.step == epoch:
            is_picture = value.metadata.plugin_data.plugin_name == "images"
            return not value.tag.startswith("final/") and (not is_picture or value.tag.startswith("preview/"))
        return event.step <= epoch

    for path in directory.glob("events.*"):
        with atomic_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            # A process that was killed may have left half a record at the end.
            records = tf.data.TFRecordDataset(str(path)).ignore_errors()
            for record in records.as_numpy_iterator():
                if stays(tf.compat.v1.Event.FromString(record)):
                    writer.write(record)
