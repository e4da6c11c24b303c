import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from experiments import jobs, runs
from experiments.experiment import QUICK_LABELLED, settings_of
from experiments.jobs import Job, Places, collect
from experiments.list import EXPERIMENTS, GROUPS, MSE, TEST_ERROR
from experiments.page import mean_and_deviation, read_results, write_page
from experiments.paper_table import COMMAND, main, read_arguments
from experiments.runs import run_all
from main import read_config
from utils import processor
from utils.errors import UserError
from utils.files import write_json

BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
SEMI_100 = BY_NAME["semi_100"]
# What main.py leaves of a run, without training it. It fails unless it is resumed where FAKE says "fail".
FAKE_MAIN = f"""
import dataclasses, os, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import main
from utils.files import write_json
config = main.read_config(sys.argv)
folder = Path(config.run_dir)
folder.mkdir(parents=True, exist_ok=True)
flags = dataclasses.asdict(config)
write_json(folder / "config.json", {{"flags": flags, "data": {{}}, "versions": {{"keras": "3"}}}})
environment = os.environ.get("TF_NUM_INTRAOP_THREADS"), os.environ.get("CUDA_VISIBLE_DEVICES")
print("cores", len(os.sched_getaffinity(0)), "threads", *environment)
if os.environ.get("FAKE") == "fail" and not config.resume:
    sys.exit("main.py: error: no luck.")
write_json(folder / "metrics.json", {{
    "test_reconstruction_mse": 0.02 + config.seed / 1000, "prior_distance": 0.06,
    "prior_distance_floor": 0.02, "train_prior_distance": 0.03, "epochs": config.n_epoch,
    "train_images_per_second": 1000.0, "wall_seconds": 1.0, "data": {{"train_images": 55_000}},
}})
"""


@pytest.fixture
def places(tmp_path):
    return Places.below(tmp_path)


@pytest.fixture
def fake_main(tmp_path, monkeypatch):
    """Processes run FAKE_MAIN."""
    (tmp_path / "main.py").write_text(FAKE_MAIN)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.01)


def write_result(places, experiment, seed, figures, **changes):
    content = {
        "experiment": experiment.name,
        "seed": seed,
        "figures": figures,
        "minutes": 61.0,
        "processor": "A Processor",
        "instructions": ["avx2"],
        "threads": 1,
        "flags": experiment.settings(),
    }
    path = jobs.result_path(places, experiment, seed)
    path.parent.mkdir(exist_ok=True)
    write_json(path, content | changes)


def page_of(places, experiments=EXPERIMENTS):
    write_page(places, experiments, COMMAND)
    return places.page.read_text()


def row_of(page, title):
    """The cells of a row by the titles of its columns; the worst labels have the last one's."""
    header = ""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|  |"):
            header = cells
        elif line.startswith(f"| {title} |"):
            return dict(zip(header, cells, strict=True))
    raise AssertionError(f"no row {title}")


def refusal(capsys, *words):
    """The only line that is printed about a mistake."""
    assert main(["paper_table", *words]) == 2
    out, err = capsys.readouterr()
    assert not out
    (line,) = err.splitlines()
    return line


# The list


def test_names_are_unique_and_fit_for_files():
    assert len(BY_NAME) == len(EXPERIMENTS)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in BY_NAME)
    for group in GROUPS:
        titles = [experiment.title for experiment in EXPERIMENTS if experiment.group == group]
        assert titles
        assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", BY_NAME)
def test_main_takes_the_flags_of_every_experiment(name):
    experiment = BY_NAME[name]
    config = experiment.config()
    assert config.data == "mnist"  # `auto` could take other images
    assert not config.animate
    assert experiment.group in GROUPS
    assert len(set(experiment.seeds)) == len(experiment.seeds) >= 3
    for word in experiment.words():
        if not word.startswith("--flagfile="):
            flag, value = word[2:].split("=")
            assert str(getattr(config, flag)).lower() == value
    small = experiment.shrunk().config()
    assert (small.data, small.n_epoch, small.model) == ("digits", 1, config.model)
    assert small.num_samples <= QUICK_LABELLED or not config.chooses_labelled
    assert small.shift == config.shift


def test_settings_are_what_decides_the_figures():
    config = read_config(["main.py", "--n_z=3", "--seed=4", "--run_dir=x", "--animate", "--n_epoch=7"])
    assert settings_of(config) == {"n_z": 3, "n_epoch": 7, "clean_epoch": 50}
    # What a run notes once it knows the data.
    roll = read_config(["main.py", "--prior=swiss_roll", "--n_z=2"])
    assert roll.lr_mid_epoch == 0
    assert settings_of(roll)["lr_mid_epoch"] == 15
    recipe = settings_of(read_config(["main.py", "--model=semi_supervised", "--recipe=short"]))
    assert recipe["cycle_rate"] == 10
    assert "consistency_rate" not in recipe  # of a phase that is off


# The page


def test_means_and_standard_deviations_are_those_of_numpy(places):
    errors, mses = [1.51, 1.74, 1.62], [0.01121, 0.01123, 0.01126]
    for seed, (error, mse) in enumerate(zip(errors, mses, strict=True)):
        figures = {
            "test_error_percent": error,
            "test_reconstruction_mse": mse,
            "label_swap_accuracy": 0.99,
        }
        write_result(places, SEMI_100, seed, figures)
    page = page_of(places)
    row = row_of(page, SEMI_100.title)
    assert row["test error, %"] == f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}"
    # Four decimals would show a standard deviation of zero.
    assert row["test MSE"] == f"{np.mean(mses):.5f} ± {np.std(mses, ddof=1):.5f}"
    assert row["label swap, %"] == "99.00 ± 0.00"
    assert row["validation error, %"] == "-"  # of runs that are older than the figure
    assert row["seeds"] == "3 of 5"
    assert row["shifted images"] == "no; copies distorted, up to 20%"
    for_d = row_of(page, f"{BY_NAME['mixture_5'].title}: not run yet")
    assert for_d["shifted images"] == "no; copies distorted, up to 20%"
    shifted = dataclasses.replace(SEMI_100, flags=(*SEMI_100.flags, "shift=1"))
    shifted_row = row_of(page_of(places, [shifted]), f"{SEMI_100.title}: not run yet")
    assert shifted_row["shifted images"] == "yes, up to 1 px; copies distorted, up to 20%"
    assert row["minutes"] == "61"
    assert row["processor"] == "A Processor (avx2), 1 thread"
    assert row["the paper"] == "1.90 ± 0.10 %"


def test_floors_are_multiples_of_each_runs_own(places):
    experiment = BY_NAME["unconditional_dense"]
    write_result(places, experiment, 0, {"prior_distance": 0.06, "prior_distance_floor": 0.02})
    write_result(places, experiment, 1, {"prior_distance": 0.05, "prior_distance_floor": 0.01})
    page = page_of(places, [experiment])
    assert row_of(page, "dense")["floors"] == f"4.0 ± {np.std([3, 5], ddof=1):.1f}"
    assert row_of(page, "dense")["shifted images"] == "no"


@pytest.mark.parametrize(
    ("values", "decimals", "text"),
    [
        ([], 2, "-"),
        ([1.5], 2, "1.50"),
        ([1.5, 1.5], 2, "1.50 ± 0.00"),
        ([100, 300], 0, "200 ± 141"),
        ([0.1, 0.1 + 1e-9], 2, "0.1000 ± 0.0000"),
    ],
)
def test_digits_of_a_cell(values, decimals, text):
    assert mean_and_deviation(values, decimals) == text


def test_the_page_names_what_is_missing_and_needs_no_runs(places):
    write_result(places, SEMI_100, 0, {"test_error_percent": 1.5})
    write_result(places, SEMI_100, 3, {"test_error_percent": 1.7, "test_reconstruction_mse": 0.01})
    page = page_of(places)
    assert "`semi_100` seeds 1, 2, 4" in page
    assert "test_reconstruction_mse of `semi_100` seed 0" in page
    assert "`mixture_5` seeds 0, 1, 2" in page
    assert row_of(page, "mixture, 5 epochs: not run yet")["test MSE"] == "-"
    assert COMMAND in page
    assert "validation split (5,000" in page
    assert str(ROOT) not in page
    assert not places.runs.exists()


def test_a_complete_table_lacks_nothing(places):
    experiment = BY_NAME["unconditional_conv"]
    distances = dict.fromkeys(("prior_distance", "train_prior_distance", "prior_distance_floor"), 0.1)
    figures = {"test_reconstruction_mse": 0.02, **distances}
    for seed in experiment.seeds:
        write_result(places, experiment, seed, figures)
    assert "Missing" not in page_of(places, [experiment])


def test_results_of_other_flags_are_named_and_not_counted(places):
    write_result(places, SEMI_100, 0, {"test_error_percent": 1.5})
    write_result(
        places, SEMI_100, 1, {"test_error_percent": 9.0}, flags=SEMI_100.settings() | {"n_z": 3, "balance": 1}
    )
    page = page_of(places)
    assert row_of(page, SEMI_100.title)["test error, %"] == "1.50"
    assert "`semi_100` seed 1, whose file has other values of --balance, --n_z" in page


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"experiment": "semi_100", "seed": 1}', b"\xff"])
def test_a_damaged_result_is_one_line(places, text):
    path = jobs.result_path(places, SEMI_100, 0)
    path.parent.mkdir()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=path.name):
        read_results(places, SEMI_100)


def test_a_processor_that_is_not_known(places):
    write_result(places, SEMI_100, 0, {}, processor=None, threads=None, minutes=None)
    row = row_of(page_of(places), SEMI_100.title)
    assert (row["processor"], row["minutes"]) == ("not known", "-")


# Running


def test_runs_are_pinned_collected_and_gone_on_with(tmp_path, places, fake_main, monkeypatch, capsys):
    words = [
        "paper_table",
        "--only",
        "unconditional_dense,mixture_5",
        "--seeds",
        "0,1",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setenv("FAKE", "fail")
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "4 are missing" in out
    assert err.count("\n") == 4
    assert "unconditional_dense seed 1: exit status 1: main.py: error: no luck." in err
    assert "not run yet" in places.page.read_text()

    assert main(words) == 0
    assert "0 running, 0 waiting" in capsys.readouterr().out
    assert (places.runs / "mixture_5-seed1.log").read_text().count("cores 1 threads 1 -1") == 2
    result = json.loads((places.results / "mixture_5-seed1.json").read_text())
    assert result["figures"] == {
        "test_reconstruction_mse": 0.021,
        "prior_distance": 0.06,
        "prior_distance_floor": 0.02,
        "train_prior_distance": 0.03,
    }
    assert result["flags"] == BY_NAME["mixture_5"].settings()
    assert (result["seed"], result["epochs"], result["threads"]) == (1, 5, 1)
    assert result["minutes"] == round(55_000 // 128 * 128 * 5 / 1000 / 60, 2)
    assert result["versions"] == {"keras": "3"}
    assert result["processor"]
    mses = [0.02, 0.021]
    expected = f"{np.mean(mses):.4f} ± {np.std(mses, ddof=1):.4f}"
    assert row_of(places.page.read_text(), "dense")["test MSE"] == expected

    # Small files are all that is needed, and trained runs are not trained again.
    monkeypatch.setattr("experiments.paper_table.Process", None)
    page = places.page.read_text()
    assert main(words) == 0
    assert "0 are missing" in capsys.readouterr().out
    (places.results / "mixture_5-seed1.json").unlink()
    assert main(words) == 0
    assert "mixture_5 seed 1 is trained: collected." in capsys.readouterr().out
    assert places.page.read_text() == page


def test_runs_share_a_gpu_that_is_asked_for_and_the_table_names_it(
    places, tmp_path, fake_main, capsys, monkeypatch
):
    words = ["--only=mixture_5", "--seeds=0", "--gpu", f"--out={tmp_path}"]
    monkeypatch.setattr(processor, "gpus", lambda: ())
    assert refusal(capsys, *words).endswith("--gpu needs an NVIDIA GPU and its driver, and there is none.")
    monkeypatch.setattr(processor, "gpus", lambda: ("NVIDIA A", "NVIDIA B"))
    for name in ("TF_NUM_INTRAOP_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    assert main(["paper_table", *words]) == 0
    cores = len(os.sched_getaffinity(0))
    assert f"cores {cores} threads None None" in (places.runs / "mixture_5-seed0.log").read_text()
    row = row_of(places.page.read_text(), "mixture, 5 epochs")
    assert row["processor"].startswith(f"NVIDIA A, NVIDIA B, {processor.name()} (")
    assert row["processor"].endswith(f", {cores} thread{'s' if cores > 1 else ''}")


def test_a_run_is_trained_when_all_its_epochs_are(places):
    job = Job(BY_NAME["mixture_5"], 0, places)
    assert not job.is_trained
    job.directory.mkdir(parents=True)
    for text, trained in {'{"epochs": 5}': True, '{"epochs": 4}': False, '{"epo': False, "[]": False}.items():
        (job.directory / "metrics.json").write_text(text)
        assert job.is_trained == trained


def test_names_and_seeds_given_twice_count_once():
    arguments = read_arguments(["--only", "mixture_5, semi_100,mixture_5", "--seeds", "1,0,1"])
    assert [experiment.name for experiment in arguments.experiments] == ["mixture_5", "semi_100"]
    assert arguments.seeds == [1, 0]


def test_a_run_of_other_flags_is_not_collected(places, fake_main, capsys):
    job = Job(BY_NAME["mixture_5"], 0, places)
    words = [*job.words("")[:-2], "--keep_prob=0.5", f"--run_dir={job.directory}"]
    environment = os.environ | runs.ONE_THREAD
    subprocess.run([sys.executable, runs.ROOT / "main.py", *words], env=environment, check=True)
    with pytest.raises(UserError, match="other values of --keep_prob"):
        collect(job)
    failures, stopped_by = run_all([job], [0])
    assert len(failures) == 1
    assert stopped_by is None
    assert not job.result.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_runs_and_begins_no_other(places, monkeypatch, number):
    begun, stopped = [], []

    class Endless:
        def __init__(self, job, core, data_dir):
            begun.append(job.seed)
            self.status = None

        def poll(self):
            if len(begun) == 2 and not stopped:
                signal.raise_signal(number)
            return self.status

        def stop(self):
            stopped.append(self)
            self.status = 128 + signal.SIGTERM

    monkeypatch.setattr(runs, "POLL_SECONDS", 0.01)
    before = signal.signal(number, signal.default_int_handler)  # pytest may run where Ctrl-C is ignored
    try:
        assert run_all([Job(SEMI_100, seed, places) for seed in range(4)], [0, 0], start=Endless) == (
            [],
            number,
        )
    finally:
        signal.signal(number, before)
    assert begun == [0, 1]
    assert len(stopped) == 2


def test_quick_goes_all_the_way(tmp_path, places, capsys):
    words = ["paper_table", "--quick", "--only", "unconditional_dense", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "unconditional_dense seed 0 ended" in capsys.readouterr().out
    result = json.loads((places.results / "unconditional_dense-seed0.json").read_text())
    assert result["flags"] == BY_NAME["unconditional_dense"].shrunk().settings()
    assert result["processor"]
    distances = {"prior_distance", "train_prior_distance", "prior_distance_floor"}
    assert set(result["figures"]) == {"test_reconstruction_mse", *distances}
    page = places.page.read_text()
    row = row_of(page, "dense")
    assert row["test MSE"] == f"{MSE.of(result['figures']):.4f}"
    assert row["seeds"] == "1 of 1"
    assert "The figures mean nothing" in page
    assert os.path.getsize(places.results / "unconditional_dense-seed0.json") < 4000
    assert str(tmp_path) not in (places.results / "unconditional_dense-seed0.json").read_text()


# The command line


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [
        (["--only", "semi_10"], "did you mean 'semi_100'?"),
        (["--only", "semi_100,"], "''"),
        (["--seeds", "7"], "--seeds '7'"),
        (["--only", "mixture_5", "--seeds", "4"], "--seeds '4' is not one of 0, 1, 2"),
        (["--jobs", "0"], "--jobs"),
        (["--jobs", "many"], "--jobs"),
        (["--data_dir", "no_such_folder"], "no_such_folder"),
        (["--quick", "--out", str(ROOT / "docs")], "--out"),
        (["--fast"], "--fast"),
    ],
)
def test_mistakes_are_one_line(capsys, words, mentioned):
    assert mentioned in refusal(capsys, *words)


def test_a_wrong_name_ends_the_command_with_2():
    command = [sys.executable, "-m", "experiments.paper_table", "--only", "semi_1O0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)


def test_list_and_table_run_nothing(tmp_path, places, capsys):
    assert main(["paper_table", "--list", "--only", "semi_all"]) == 0
    assert "--num_samples=55000" in capsys.readouterr().out
    write_result(places, SEMI_100, 2, {TEST_ERROR.name: 1.234})
    assert main(["paper_table", "--table", "--out", str(tmp_path)]) == 0
    assert row_of(places.page.read_text(), SEMI_100.title)["test error, %"] == "1.23"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "results.md"]
