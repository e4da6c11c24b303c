"""How much faster several workers train than one: measured for two on this machine, and modelled for more.

`python -m benchmarks.workers` measures one worker and two in turn, a thread each, writes the JSON file and
the picture of docs/distributed.md, and prints both tables of that page. `--draw` only draws and prints.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from benchmarks.cases import CASES, load_images
from benchmarks.operations import networks, step_flops
from benchmarks.worker import Worker
from utils.files import atomic_path, write_json

ROOT = Path(__file__).parents[1]
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "workers.json", ROOT / "docs" / "images" / "workers.png"
STEPS_PER_CALL = 10  # in `fit`, up to 50 on a CPU
BATCHES = (128, 512, 1024)  # images a worker
PORTS = (23800, 23801)
# What is assumed of machines that are not here: name, replicas, FLOP/s of a replica, bytes/s of a link of the
# ring, and seconds of one message.
CLUSTERS = (
    ("8 GPUs, NVLink", 8, 20e12, 200e9, 5e-6),
    ("8 GPUs, PCI Express", 8, 20e12, 12e9, 10e-6),
    ("64 machines with 16 cores, 10 Gbit/s", 64, 1.2e12, 1.1e9, 30e-6),
    ("64 machines with a GPU, 100 Gbit/s", 64, 20e12, 11e9, 20e-6),
    ("64 machines with a GPU, 10 Gbit/s", 64, 20e12, 1.1e9, 30e-6),
)
WORTH_IT = 0.8  # efficiency


class SharedStep:
    """The train function as `fit` calls it, ten steps a call, shared out among the workers of a TF_CONFIG."""

    def __init__(self, case, data, directory, tf_config=""):
        import tensorflow as tf

        from data.pipeline import training_batches
        from training.fit import build_model
        from training.strategy import multi_worker_strategy, shared_out

        config = case.config()
        if tf_config:
            os.environ["TF_CONFIG"] = tf_config
            strategy = multi_worker_strategy()
        else:
            strategy = tf.distribute.get_strategy()
        self.batch_size = config.batch_size
        with strategy.scope():
            self.model = build_model(config, data)
            self.model.compile(
                steps_per_execution=STEPS_PER_CALL,
                **{name: getattr(self.model, name) for name in self.model.get_compile_config()},
            )
            self.model.hold(data.train_images, data.train_labels)
        batches = training_batches(len(data.train_images), config.batch_size, 0)
        self.iterator = iter(shared_out(batches, strategy))
        self.train = self.model.make_train_function()
        self.run(STEPS_PER_CALL)

    def run(self, steps):
        """So many steps, in whole calls; `cpu` are the seconds that all threads of this process computed."""
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps // STEPS_PER_CALL):
            logs = self.train(self.iterator)
        float(logs["reconstruction_loss"])  # waits for the last step
        return {
            "seconds": time.perf_counter() - start,
            "cpu": time.process_time() - cpu,
            "images": steps * self.batch_size,
        }


def measure(rounds, steps, batches, hidden):
    """Medians over rounds, in each of which three take a block of steps, one after the other.

    They are one worker, two that know nothing of each other, what this machine lets two gain at most,
    and two that share the work.
    """
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    data = load_images(None, 12_000)
    points = []
    for batch in batches:
        case = CASES[0].with_flags(n_hidden=hidden, batch_size=batch)
        both = case.with_flags(batch_size=2 * batch)
        addresses = [f"127.0.0.1:{port}" for port in PORTS]
        configs = [
            json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
            for index in range(2)
        ]
        apart = [Worker("benchmarks.workers:SharedStep") for _ in range(2)]
        two = [Worker("benchmarks.workers:SharedStep", {"tf_config": text}) for text in configs]
        answers(two, "build", both, data)
        answers(apart, "build", case, data)
        rows = []
        for _ in range(rounds):
            alone = answers(apart[:1], "run", steps)[0]
            unconnected = answers(apart, "run", steps)
            together = answers(two, "run", steps)
            rows.append(
                {
                    "seconds_one": alone["seconds"] / steps,
                    "seconds_apart": max(each["seconds"] for each in unconnected) / steps,
                    "seconds_two": max(each["seconds"] for each in together) / steps,
                    "cpu_one": alone["cpu"] / steps,
                    "cpu_two": max(each["cpu"] for each in together) / steps,
                }
            )
            print(batch, rows[-1], flush=True)
        for worker in (*apart, *two):
            worker.process.kill()  # TensorFlow has taken SIGTERM for itself
            worker.process.join()
        config = case.config()
        points.append(
            {
                "batch": batch,
                "flops": sum(step_flops(config, data.image_shape, data.n_classes).values()),
                "bytes": reduced_bytes(config, data.image_shape, data.n_classes),
                "rounds": rows,
                "speedup": speedup(rows, "seconds_one", "seconds_two"),
                "speedup_apart": speedup(rows, "seconds_one", "seconds_apart"),
                "cpu_speedup": speedup(rows, "cpu_one", "cpu_two"),
                **{name: statistics.median(row[name] for row in rows) for name in rows[0]},
            }
        )
    return points


def speedup(rows, one, two):
    """How much more two workers do than one, by these times of the rows: a median over the rounds."""
    return statistics.median(2 * row[one] / row[two] for row in rows)


def answers(workers, *words):
    """What several workers answer to a request that they work on at the same time."""
    for worker in workers:
        worker.ask(*words)
    return [worker.answer() for worker in workers]


def reduced_bytes(config, image_shape, n_classes):
    """Bytes of the gradients, float32, that the phases of one train step add up over the replicas."""
    encoder, decoder, discriminators = networks(config, image_shape, n_classes)
    size = [4 * sum(weights(layer) for layer in layers) for layers in (encoder, decoder)]
    return 2 * size[0] + size[1] + 4 * sum(weights(layer) for d in discriminators for layer in d)


def weights(layer):
    """Of a dense layer's kernel and bias."""
    return layer.n_in * layer.n_out + layer.n_out


def step_seconds(compute, size, replicas, bandwidth, latency=0.0, reductions=3):
    """Seconds of a step: a replica's own, then every phase's gradients around a ring."""
    moved = 2 * (replicas - 1) / replicas * size
    return compute + moved / bandwidth + reductions * 2 * (replicas - 1) * latency


def fitted_bandwidth(points):
    """Bytes a second between the two workers here: what explains the processor time beside the products'."""
    return statistics.median(
        point["bytes"] / max(point["cpu_two"] - point["cpu_one"], 1e-9) for point in points
    )


def tables(points):
    """The two tables of docs/distributed.md, as text."""
    bandwidth = fitted_bandwidth(points)
    columns = ("images a worker", "one worker, s a step", "two workers, s a step", "speed-up, clock")
    columns += ("speed-up, processor time", "the model's", "speed-up of two unconnected, clock")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for point in points:
        modelled = 2 * point["cpu_one"] / step_seconds(point["cpu_one"], point["bytes"], 2, bandwidth)
        lines.append(
            f"| {point['batch']} | {point['seconds_one']:.2f} | {point['seconds_two']:.2f} | "
            f"{point['speedup']:.2f} | {point['cpu_speedup']:.2f} | {modelled:.2f} | "
            f"{point['speedup_apart']:.2f} |"
        )
    lines += [
        "",
        f"{points[0]['bytes'] / 1e6:.1f} MB are reduced in a step; {bandwidth / 1e6:.0f} MB/s fitted.",
        "",
    ]
    lines += [
        "| cluster, by assumption | computing, ms | reducing, ms | speed-up | efficiency | images for 80 % |",
        "|---|---|---|---|---|---|",
    ]
    point = next(point for point in points if point["batch"] == 512)
    for name, replicas, rate, link, latency in CLUSTERS:
        compute = point["flops"] / rate
        reducing = step_seconds(0, point["bytes"], replicas, link, latency)
        share = compute / (compute + reducing)
        wanted = point["batch"] * reducing / compute / (1 / WORTH_IT - 1)
        lines.append(
            f"| {name} | {1e3 * compute:.1f} | {1e3 * reducing:.1f} | {replicas * share:.1f} of {replicas} | "
            f"{share:.0%} | {wanted:,.0f} |"
        )
    return "\n".join(lines)


def draw(points, path):
    """Left: two workers here, by the batch. Right: the model's efficiency, by the number of replicas."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    bandwidth = fitted_bandwidth(points)
    batches = [point["batch"] for point in points]
    left.plot(batches, [point["speedup"] for point in points], "s", label="measured, clock")
    left.plot(batches, [point["cpu_speedup"] for point in points], "o", label="measured, processor time")
    slope = statistics.median(point["cpu_one"] / point["batch"] for point in points)
    fine = [64 * 1.1**i for i in range(32)]
    modelled = [2 * slope * b / step_seconds(slope * b, points[0]["bytes"], 2, bandwidth) for b in fine]
    left.plot(fine, modelled, "-", color="grey", label=f"model, {bandwidth / 1e6:.0f} MB/s")
    left.axhline(2, ls=":", color="grey")
    left.set(xscale="log", xlabel="images a worker", ylabel="speed-up of two workers", ylim=(0, 2.2))
    left.set_xticks(batches, batches)
    left.minorticks_off()
    left.legend(loc="lower right", fontsize=8)
    point = next(point for point in points if point["batch"] == 512)
    for name, largest, rate, link, latency in CLUSTERS:
        counts = [2**i for i in range(7) if 2**i <= largest]
        compute = point["flops"] / rate
        shares = [compute / step_seconds(compute, point["bytes"], n, link, latency) for n in counts]
        right.plot(counts, shares, "o-", ms=3, label=name)
    right.axhline(WORTH_IT, ls=":", color="grey")
    right.set(xscale="log", xlabel="replicas", ylabel="efficiency, modelled", ylim=(0, 1.05))
    right.set_xticks([1, 2, 4, 8, 16, 32, 64], [1, 2, 4, 8, 16, 32, 64])
    right.minorticks_off()
    right.legend(fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)


def main():
    """Measures, unless told not to, draws and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=STEPS_PER_CALL, help="steps of a block")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), help="images a worker")
    parser.add_argument("--hidden", type=int, default=1000)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if not options.draw:
        batches = [int(batch) for batch in options.batches.split(",")]
        write_json(RESULTS, measure(options.rounds, options.steps, batches, options.hidden))
    points = json.loads(RESULTS.read_text())
    print(tables(points))
    draw(points, PICTURE)


if __name__ == "__main__":
    main()
