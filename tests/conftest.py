"""Shared by all tests: the project on the path, a small model, a small data set."""

import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# On a GPU: the workers share its memory, and products are compared with numpy's.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has a core; threads of TensorFlow's own would get in each other's way.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

needs_mnist = pytest.mark.skipif(
    not os.environ.get("AAE_DATA_DIR"), reason="AAE_DATA_DIR does not name a folder with MNIST"
)

# The first measures the memory of processes, to which that of the process that starts them counts; the others
# take long, so that no worker waits for one of them at the end.
FIRST = [
    f"test_{name}.py"
    for name in (
        *("fuzz", "recovery", "main", "models", "clustering", "distributed", "saved_model"),
        *("label_reader", "benchmarks", "export", "image_folders"),
    )
]


def pytest_collection_modifyitems(items):
    """Brings these files to the front, in this order."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


def pytest_collection_finish():
    """Has Python look for cycles no more among a million objects that stay: those of the modules."""
    gc.freeze()


@pytest.fixture
def make_model():
    """Builds a small compiled model; keyword arguments replace the small defaults."""

    def make(prior="gaussian_mixture", n_z=2, model="supervised", **kwargs):
        from models import MODELS
        from utils import registry

        # The first seed's semi-supervised model, codes that D sees as they are, and no averages of weights,
        # unless a test differs.
        plain = {"joint_discriminator": False, "cycle": False, "d_noise": 0.0, "ema_decay": 0.0}
        arguments = {"image_shape": (8, 8, 1), "n_classes": 10, "n_hidden": 16, **plain, **kwargs}
        model = registry.load(MODELS, model)(prior=prior, n_z=n_z, **arguments)
        model.compile()
        return model

    return make


@pytest.fixture
def batch():
    """40 random images uint8 (40, 8, 8, 1) with every label four times, uint8 (40,)."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    return images, np.tile(np.arange(10, dtype=np.uint8), 4)


@pytest.fixture
def labelled_batch(batch):
    """The batch, and 20 of its images with their labels as the labelled part."""
    return *batch, batch[0][:20], batch[1][:20]


def trained(model, batch, steps):
    """The model after so many more steps on the same batch, at a rate that moves its weights."""
    import tensorflow as tf

    for phase in model.phases:
        getattr(model, f"{phase}_optimizer").learning_rate = 1e-2
    batches = tf.data.Dataset.from_tensors(tuple(map(tf.constant, batch))).repeat()
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return model
