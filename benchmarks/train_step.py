"""Measures the train step against other ways to compute it, and against what the machine can do.

All contenders are measured in the same rounds, one after the other, each in a process of its own that
sleeps meanwhile; ratios are medians over the rounds, so a machine that slows down slows both sides.
"""

import argparse
import dataclasses
import importlib.util
import os
import re
import statistics
import sys
import time
from pathlib import Path

from benchmarks import report
from benchmarks.cases import CASES, load_images
from benchmarks.scaling import measure_scaling, save_scaling_plot
from benchmarks.startup import measure_startup
from benchmarks.worker import ContenderFailed, Worker
from utils import processor, registry
from utils.errors import UserError, first_line, refuse
from utils.files import write_json

RESULTS = Path(__file__).parent / "results"
BLOCK_SECONDS = 0.6
PAUSE_SECONDS = 0.05  # until the threads of the process before have gone to sleep


@dataclasses.dataclass(frozen=True)
class Contender:
    """A row of the table.

    Attributes:
        section: the choice of `--only` that it belongs to.
        target: "module:class", see `benchmarks.worker.Worker`.
        options: further arguments of the class.
        package: what it needs beyond requirements.txt.
        whole_epochs: whether it runs epochs whatever the steps asked for.
    """

    section: str
    target: str
    options: dict = dataclasses.field(default_factory=dict)
    package: str = ""
    whole_epochs: bool = False


BARE = "benchmarks.tensorflow_steps:BareStep"
TORCH = "benchmarks.torch_step:TorchContender"
CONTENDERS = {
    "bare": Contender("step", BARE),
    "stock optimizer": Contender("step", BARE, {"stock": True}),
    "bfloat16": Contender("step", BARE, {"precision": "bfloat16"}),
    "PyTorch eager": Contender("step", TORCH, package="torch"),
    "PyTorch compiled": Contender("step", TORCH, {"compiled": True}, package="torch"),
    "limit": Contender("step", "benchmarks.limit:Limit"),
    "pipeline": Contender("pipeline", "benchmarks.tensorflow_steps:Pipeline"),
    "reconstruct": Contender("inference", "benchmarks.tensorflow_steps:Reconstruct"),
    "PyTorch reconstruct": Contender("inference", "benchmarks.torch_step:Reconstruct", package="torch"),
    "fit": Contender("fit", "benchmarks.tensorflow_steps:FitEpochs", whole_epochs=True),
}
TIMED = {"step", "fit", "pipeline", "inference"}
PER_CASE = {*TIMED, "memory"}
SECTIONS = ("step", "fit", "pipeline", "inference", "memory", "startup", "scaling")


def main(argv):
    """Runs the benchmark on `sys.argv`-like words and returns the exit status."""
    try:
        arguments = read_arguments(argv[1:])
        measure(arguments)
    except UserError as error:
        print(f"train_step: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ntrain_step: interrupted.", file=sys.stderr)
        return 130
    return 0


def read_arguments(words):
    """The command line.

    Raises:
        UserError: for what cannot be measured.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.error = refuse
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections to measure, separated by commas")
    parser.add_argument(
        "--cases", help="models to measure, separated by commas (default: all, or h1000 with --quick)"
    )
    parser.add_argument("--rounds", type=int, help="rounds per case (default: 7, or 2 with --quick)")
    parser.add_argument("--data_dir", default=os.environ.get("AAE_DATA_DIR", ""), help="folder with MNIST")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file and the plot")
    parser.add_argument("--quick", action="store_true", help="tiny models, no PyTorch: only a smoke test")
    arguments = parser.parse_args(words)
    names = [case.name for case in CASES]
    if arguments.cases is None:
        arguments.cases = names[0] if arguments.quick else ",".join(names)
    for option, choices in (("only", SECTIONS), ("cases", names)):
        chosen = [name.strip() for name in getattr(arguments, option).split(",")]
        for name in chosen:
            if name not in choices:
                raise UserError(registry.unknown_choice(option, name, choices))
        setattr(arguments, option, chosen)
    if arguments.rounds is None:
        arguments.rounds = 2 if arguments.quick else 7
    if arguments.rounds < 1:
        raise UserError(f"--rounds must be at least 1, got {arguments.rounds}.")
    if arguments.results.exists() and not arguments.results.is_dir():
        raise UserError(f"--results {arguments.results} is not a folder.")
    return arguments


def measure(arguments):
    """Runs the chosen sections, prints their tables, and writes what was measured."""
    only, quick, start = set(arguments.only), arguments.quick, time.perf_counter()
    data = load_images(arguments.data_dir, count=1200 if quick else 60_000)
    machine = report.describe_machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, {' '.join(machine['flags'])}")
    if machine["gpus"]:
        print("GPU: " + ", ".join(machine["gpus"]))
    print("Kernels: " + ", ".join(f"{name} {value}" for name, value in machine["kernels"].items()))
    print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    print(f"Images: {data.name} ({data.source}), {len(data.train_images)} of {data.image_shape}", flush=True)
    results = {"machine": machine, "data": data.name, "quick": quick, "rounds": arguments.rounds}

    if only & PER_CASE:
        cases = [case.shrunk() if quick else case for case in CASES if case.name in arguments.cases]
        results["cases"] = [measure_case(case, case.images(data), only, arguments) for case in cases]
    if "startup" in only:
        # The digits inside scikit-learn are always there.
        given = data.name == "mnist"
        words = ["--data=mnist", f"--data_dir={arguments.data_dir}"] if given else ["--data=digits"]
        results["startup"] = measure_startup(words, runs=1 if quick else 4)
        print_startup(results["startup"], words[0])
    if "scaling" in only:
        results["scaling"] = measure_scaling(data, quick)
        print_scaling(results["scaling"])
    if only & PER_CASE and not machine["gpus"]:  # the targets are of processors
        results["targets"] = check_targets(cases, results["cases"])
    results["seconds"] = time.perf_counter() - start

    arguments.results.mkdir(parents=True, exist_ok=True)
    if "scaling" in only:
        save_scaling_plot(arguments.results / "scaling.png", results["scaling"])
    path = arguments.results / f"{time.strftime('%Y%m%d-%H%M%S')}-{_slug(machine)}.json"
    write_json(path, results)
    print(f"\n{path}, {results['seconds']:.0f} s")


def _slug(machine):
    return re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']} {machine['cores']} cores".lower()).strip("-")


def measure_case(case, data, only, arguments):
    """All contenders of the chosen sections in one case; prints their table.

    Returns:
        A dict for the JSON file: the case, every block of every round, medians, ratios, memory.
    """
    print(f"\n{case}, images {data.image_shape}", flush=True)
    workers, left_out = start_workers(case, data, only, arguments.quick)
    n_rounds = arguments.rounds if only & TIMED else 1
    rounds = run_rounds(workers, case, n_rounds)
    memory = {name: worker.stop() for name, worker in workers.items()}

    # A contender that runs in fewer rounds than the others has joined the first ones.
    names = list(rounds[0])
    steps = [name for name in names if CONTENDERS[name].section == "step"]
    best = report.best_of(rounds, [name for name in steps if CONTENDERS[name].package])
    others = {name: name for name in ("limit", "PyTorch reconstruct") if name in names}
    references = {"bare": "bare", "PyTorch best": best, **others}
    config = case.config()
    result = {
        "case": dataclasses.asdict(case),
        "shapes": {
            "images": [config.batch_size, *data.image_shape],
            "codes": [config.batch_size, config.n_z],
        },
        "images_per_second": {name: report.median_rate(rounds, name) for name in names},
        "ratios": {
            f"{name} / {label}": report.paired_ratio(rounds, name, reference)
            for name in names
            for label, reference in references.items()
            if reference
        },
        "pytorch_best": best,
        "left_out": left_out,
        "peak_memory_bytes": memory,
        "rounds": rounds,
    }
    print_case(config, result, references)
    return result


def start_workers(case, data, only, quick):
    """Starts and warms up the contenders of the chosen sections.

    Returns:
        Dicts by name: the workers, and why the others were left out.
    """
    workers, left_out, gpus = {}, {}, processor.gpus()
    fast_bfloat16 = gpus or processor.multiplies_bfloat16()
    for name, contender in CONTENDERS.items():
        # The bare step is what everything is compared with.
        if contender.section not in only and name != "bare":
            continue
        if contender.whole_epochs and not case.fit_rounds:
            left_out[name] = "an epoch of this case would take minutes"
        elif name == "limit" and gpus:
            left_out[name] = "it is that of the processor"
        elif name == "bfloat16" and case.config().network == "conv" and not fast_bfloat16:
            left_out[name] = "this processor multiplies it in software, and convolutions take minutes"
        elif contender.package and quick:
            left_out[name] = "--quick"
        elif contender.package and not importlib.util.find_spec(contender.package):
            left_out[name] = f"{contender.package} is not installed (requirements-bench.txt)"
        else:
            workers[name] = Worker(contender.target, contender.options)
            workers[name].ask("build", case, data)
    for name, worker in list(workers.items()):
        try:
            worker.answer()
        except ContenderFailed as error:
            if name == "bare":
                raise
            # Where the processor lacks an instruction, oneDNN ends the process of a bfloat16 step.
            left_out[name] = first_line(error)
            del workers[name]
    for name, reason in left_out.items():
        print(f"  without {name}: {reason}", flush=True)
    return workers, left_out


def run_rounds(workers, case, n_rounds):
    """Lets the contenders run in turn.

    Returns:
        One dict per round: the blocks that each contender ran, dicts with `seconds` and `images`.
    """
    seconds, batch_size = 0.05 if case.tiny else BLOCK_SECONDS, case.config().batch_size
    steps = {
        name: report.steps_in(seconds, worker.run(2), batch_size)
        for name, worker in workers.items()
        if not CONTENDERS[name].whole_epochs
    }
    rounds = []
    for number in range(n_rounds):
        others = [name for name in steps if name != "bare"]
        # Back and forth, and the reference at both ends: a drift of the machine cancels out.
        order = ["bare", *(others if number % 2 == 0 else others[::-1])]
        order += [name for name in workers if name not in steps and number < case.fit_rounds]
        row = {name: [] for name in workers if name in order}
        for name in [*order, "bare"]:
            time.sleep(PAUSE_SECONDS)
            row[name].append(workers[name].run(steps.get(name, 0)))
        rounds.append(row)
    return rounds


def print_case(config, result, references):
    """The table of one case: a row per contender."""
    present = {label: name for label, name in references.items() if name}
    rows = [["", "images/s", "ms/step", *(f"/ {label}" for label in present), "peak MB"]]
    for name, speed in result["images_per_second"].items():
        ratios = [f"{result['ratios'][f'{name} / {label}']:.3f}" for label in present]
        memory = f"{result['peak_memory_bytes'][name] / 1e6:.0f}"
        rows.append([name, f"{speed:,.0f}", f"{1000 * config.batch_size / speed:.2f}", *ratios, memory])
    print(report.table(rows))
    speeds = result["images_per_second"]
    if "limit" in speeds:
        blocks = [block for row in result["rounds"] for block in row["limit"]]
        flops = statistics.median(block["flops_per_second"] for block in blocks)
        bandwidth = statistics.median(block["bytes_per_second"] for block in blocks)
        rates = (
            f"{flops / 1e9:.0f} GFLOP/s in a float32 matrix product, {bandwidth / 1e9:.1f} GB/s from memory"
        )
        print(f"limit: {rates}")
    if "pipeline" in speeds:
        share = speeds["bare"] / speeds["pipeline"]
        print(f"input pipeline alone: {share:.2%} of the step's time")
    sys.stdout.flush()


def check_targets(cases, results):
    """Prints the measured ratios beside the targets, and returns them."""
    rows, checked = [["", "case", "measured", "at least", "aim", ""]], []
    for target in report.TARGETS:
        for case, result in zip(cases, results, strict=True):
            name = f"{target.contender} / {target.reference}"
            ratio = result["ratios"].get(name)
            if ratio is None or case.tiny or not target.holds_for(case.config()):
                continue
            verdict = report.verdict(ratio, target.at_least, target.aim)
            rows.append([name, case.name, f"{ratio:.3f}", target.at_least, target.aim, verdict])
            checked.append(
                {**dataclasses.asdict(target), "case": case.name, "measured": ratio, "verdict": verdict}
            )
    if checked:
        print("\nTargets (ratios of images per second)")
        print(report.table(rows))
    return checked


def print_startup(startup, data_flag):
    """Medians beside the targets."""
    print(f"\nWaiting: until the first step, and after the last one (with {data_flag})")
    rows = [["", "median s", "at most", "aim", ""]]
    for name, times in startup.items():
        must, aim, verdict = "", "", ""
        if name in report.STARTUP_TARGETS:
            must, aim = report.STARTUP_TARGETS[name]
            verdict = report.verdict(times["median"], must, aim, larger_is_better=False)
        rows.append([name, f"{times['median']:.2f}", must, aim, verdict])
    print(report.table(rows), flush=True)


def print_scaling(curves):
    """The points of the plot."""
    for curve in curves:
        print(f"\n{curve['y']} by {curve['x']}")
        rows = [[curve["x"], "measured", "in proportion to the work"]]
        for value, seconds, expected in zip(
            curve["values"], curve["seconds"], curve["expected"], strict=True
        ):
            rows.append([value, f"{seconds:.4f}", f"{expected:.4f}"])
        print(report.table(rows), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
