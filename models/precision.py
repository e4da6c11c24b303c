"""How exactly the processor multiplies."""

import contextlib

import tensorflow as tf


@contextlib.contextmanager
def exact_products():
    """Has a GPU multiply float32 with all its digits, so that figures do not depend on where they are made.

    By itself TensorFlow lets it round the factors to ten bits (TF32), which training does not notice.
    """
    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
