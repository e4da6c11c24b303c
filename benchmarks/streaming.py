"""The train step on held and on stored images, in turn: `python -m benchmarks.streaming [--case conv64]`.

Both train the same model in the same process, so that what else the machine does slows both.
"""

import argparse
import os
import tempfile
import time

import numpy as np

from main import read_config, start_tensorflow

CASES = {
    "mnist": ((28, 28, 1), 55_000, ["--n_hidden=1000", "--n_z=2", "--prior=gaussian_mixture"]),
    "conv32": ((32, 32, 3), 20_000, ["--network=conv", "--conv_widths=64,128,256", "--n_z=10"]),
    "conv64": ((64, 64, 3), 8_000, ["--network=conv", "--conv_widths=32,64,128", "--n_z=10"]),
    "conv128": ((128, 128, 3), 3_000, ["--network=conv", "--conv_widths=16,32,64", "--n_z=10"]),
}


def main():
    """Prints a row for each case: medians of the ratios of neighbouring blocks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=4, help="of a block")
    options = parser.parse_args()
    start_tensorflow()
    print(
        "| case | held, images/s | streamed, images/s | streamed / held, speed | held / streamed, processor |"
    )
    print("|---|---|---|---|---|")
    for name in options.case or CASES:
        print(f"| {name} | {' | '.join(measured(name, options))} |", flush=True)


def measured(name, options):
    """The cells of a row."""
    from data.image_data import ImageData
    from data.pipeline import read_batches, training_batches
    from data.preparation import prepare
    from data.source import ImageSource
    from training.fit import build_model

    shape, count, words = CASES[name]
    config = read_config(["main.py", "--data=digits", "--batch_size=128", *words])
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (count, *shape), np.uint8), (np.arange(count) % 10).astype(np.uint8)
    held = ImageData(name, "random", *(images, labels), *2 * (images[:100], labels[:100]))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        stored = prepare(ImageSource.of_arrays(held))
        batches = training_batches(count, config.batch_size, 0)
        model = build_model(config, held)
        model.compile(steps_per_execution=1)
        model.hold(images, labels)
        sides = []
        for data in (batches, read_batches(batches, stored.train_images, labels)):
            model.make_train_function(force=True)
            sides.append((model.train_function, iter(data)))
            block(*sides[-1], 3)
        steps = max(1, int(options.seconds / block(*sides[0], 3)[0] * 3))
        rows = np.array([[block(*side, steps) for side in sides] for _ in range(options.rounds)])
        seconds, processor = rows[:, :, 0], rows[:, :, 1]
        speeds = steps * config.batch_size / np.median(seconds, axis=0)
        ratios = np.median(seconds[:, 0] / seconds[:, 1]), np.median(processor[:, 0] / processor[:, 1])
        return [*(f"{speed:,.0f}" for speed in speeds), *(f"{ratio:.3f}" for ratio in ratios)]


def block(train, iterator, steps):
    """Wall and processor seconds of so many steps."""
    begin, used = time.perf_counter(), time.process_time()
    for _ in range(steps):
        logs = train(iterator)
    float(logs["reconstruction_loss"])  # waits for the last step
    return time.perf_counter() - begin, time.process_time() - used


if __name__ == "__main__":
    main()
