"""Several devices and machines: TF_CONFIG, the meeting of the workers, equal weights, faults, clusters."""

import dataclasses
import json
import os
import platform
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import yaml
from conftest import ROOT

import main
from data.loading import load_data
from models.model_file import read_description
from tests.chaos import differences as file_differences
from tests.chaos_workers import COMMON, TRAININGS, free_addresses, killed, left_alone, tf_config
from tests.chaos_workers import Workers as Processes
from training.checkpoints import saved_checkpoints
from training.cluster import Cluster, cluster_of, read_cluster
from training.meeting import LOST, Workers, differences
from training.refusals import refuse_uneven
from training.settings import Config
from utils.errors import UserError

TWO = ["a:1", "b:2"]
# What two blocks of 100 MB, one after the other, add to the pages that the kernel has handed out.
NEW_PAGES = """
import resource, sys
import numpy as np
from training.cluster import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
np.ones(100_000_000, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(100_000_000, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
STATEMENT = {
    "flags": {"seed": 0, "n_epoch": 2},
    "data": {"name": "digits", "checksum": "00000000"},
    "versions": {"tensorflow": "2.21.0"},
    "checkpoint": "epoch_00000.keras",
    "run_dir": "runs/here",
}


def config(cluster, kind="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def test_who_is_who():
    assert read_cluster(config({"worker": TWO}, index=1)) == Cluster(("a:1", "b:2"), 1)
    with_chief = {"worker": ["b:2", "c:3"], "chief": ["a:1"]}
    assert read_cluster(config(with_chief, "chief")) == Cluster(("a:1", "b:2", "c:3"), 0)
    assert read_cluster(config(with_chief, index="1")) == Cluster(("a:1", "b:2", "c:3"), 2)
    assert read_cluster(config({"worker": ["[::1]:7"]})).endpoint(0) == ("::1", 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG is not JSON"),
        ("[" * 10**5, "TF_CONFIG is not JSON"),
        ("[]", 'needs "cluster" and "task"'),
        ('{"cluster": {"worker": ["a:1"]}}', 'needs "cluster" and "task"'),
        (config({"worker": TWO, "ps": ["c:3"]}), "names ps: there are only chief and worker"),
        (config({"worker": "a:1"}), "must be a list of addresses"),
        (config({"worker": ["a:1", "b"]}), "must be a list of addresses"),
        (config({"worker": ["a:1", "b:99999"]}), "must be a list of addresses"),
        (config({"worker": TWO, "chief": ["c:3", "d:4"]}), "names 2 chiefs, c:3, d:4: there can be one"),
        (config({"worker": ["a:1", "a:1"]}), "gives a:1 to several workers"),
        (config({"worker": TWO}, "chief"), "must be one of worker, got 'chief'"),
        (json.dumps({"cluster": {"worker": TWO}, "task": {"type": "worker"}}), "needs an index"),
        (config({"worker": TWO}, index=True), "needs an index"),
        (config({"worker": TWO}, index=2), "must be from 0 to 1, got 2"),
        (config({"worker": TWO}, index=-1), "must be from 0 to 1, got -1"),
    ],
)
def test_a_wrong_tf_config_is_refused(text, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TF_CONFIG", text)
    words = ["--strategy", "multi_worker", "--data", "digits", "--run_dir", str(tmp_path / "run")]
    assert main.main(["main.py", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_who_trains_alone(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster_of("auto") is None
    with pytest.raises(UserError, match="needs the environment variable TF_CONFIG"):
        cluster_of("multi_worker")
    monkeypatch.setenv("TF_CONFIG", config({"worker": ["a:1"]}))
    assert cluster_of("auto") is None
    monkeypatch.setenv("TF_CONFIG", config({"worker": TWO}))
    assert cluster_of("auto").size == 2
    assert cluster_of("none") is None
    assert cluster_of("mirrored") is None


def test_what_does_not_divide_is_refused():
    refuse_uneven(Config(batch_size=12), 3)
    with pytest.raises(UserError, match="--batch_size 128 does not divide among 3 replicas"):
        refuse_uneven(Config(batch_size=128), 3)
    semi = {"model": "semi_supervised", "batch_size": 120}
    refuse_uneven(Config(**semi, num_samples=5000), 3)
    with pytest.raises(UserError, match="--num_samples 100 does not divide among 3 replicas"):
        refuse_uneven(Config(**semi, num_samples=100), 3)


@pytest.mark.parametrize("given", [["--batch_size", "32"], []])
def test_what_does_not_divide_is_refused_as_soon_as_it_is_known(monkeypatch, capsys, tmp_path, given):
    """A given batch size before the data is read, the usual one of the data before anything is written."""
    monkeypatch.setenv("TF_CONFIG", config({"worker": [*TWO, "c:3"]}))
    loaded = []
    monkeypatch.setattr("training.run.load_data", lambda *words: loaded.append(words) or load_data(*words))
    words = ["--strategy", "multi_worker", "--data", "digits", "--run_dir", str(tmp_path / "run")]
    assert main.main(["main.py", *words, *given]) == 2
    assert "--batch_size 32 does not divide among 3 replicas" in capsys.readouterr().err
    assert bool(loaded) != bool(given)
    assert not (tmp_path / "run").exists()


def test_xla_is_for_one_device():
    with pytest.raises(UserError, match="--jit_compile on does not go with --strategy mirrored"):
        Config(strategy="mirrored", jit_compile="on").validate()


def meeting(statements, seconds=20, indices=None):
    """What `meet` returns or raises for workers that come with these statements, each in a thread."""
    addresses = tuple(free_addresses(len(statements)))
    results = [None] * len(statements)

    def join(place, index, statement):
        workers = Workers(Cluster(addresses, index))
        try:
            results[place] = workers.meet(statement, seconds)
        except UserError as error:
            results[place] = str(error)
        for connection in workers._connections.values():
            connection.close()

    indices = indices or range(len(statements))
    threads = [
        threading.Thread(target=join, args=(place, index, statement))
        for place, (index, statement) in enumerate(zip(indices, statements, strict=True))
        if statement is not None
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_equal_workers_meet_and_the_chief_says_where_results_land():
    others = {**STATEMENT, "run_dir": "runs/elsewhere"}
    assert meeting([STATEMENT, others, others]) == ["runs/here"] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flags": {"seed": 3, "n_epoch": 2}}, "--seed 3 instead of 0"),
        ({"data": {"name": "digits", "checksum": "00000001"}}, "checksum 00000001 instead of 00000000"),
        ({"versions": {"tensorflow": "2.20.0"}}, "tensorflow 2.20.0 instead of 2.21.0"),
        ({"checkpoint": "epoch_00001.keras"}, "checkpoint epoch_00001.keras instead of epoch_00000.keras"),
        ({"flags": 3}, "another version of this program"),
    ],
)
def test_workers_that_differ_are_refused_everywhere(change, message):
    for said in meeting([STATEMENT, STATEMENT, {**STATEMENT, **change}]):
        assert said.startswith("worker 2 (127.0.0.1:")
        assert message in said
    assert message in differences({**STATEMENT, **change}, STATEMENT)


def test_a_worker_that_does_not_come_is_named():
    chief, _, other = meeting([STATEMENT, None, STATEMENT], seconds=1)
    assert re.fullmatch(r"worker 1 \(127\.0\.0\.1:\d+\) did not come within 1 s\.", chief)
    assert other == chief
    _, alone = meeting([None, STATEMENT], seconds=1)
    assert re.match(r"worker 0, the chief \(127\.0\.0\.1:\d+\) did not answer within 1 s: ", alone)


def test_two_processes_cannot_be_the_same_worker():
    said = meeting([STATEMENT, STATEMENT], seconds=1, indices=[0, 0])
    assert (
        sum("cannot be opened" in text and "is another process this worker already?" in text for text in said)
        == 1
    )
    assert sum("worker 1" in text and "did not come" in text for text in said) == 1


# A worker that meets the others, says so, and sleeps as one that waits inside TensorFlow.
SLEEPER = """
import json, sys, time
sys.path.insert(0, {root!r})
from training.cluster import read_cluster
from training.meeting import Workers
workers = Workers(read_cluster(sys.argv[1]))
workers.meet(json.loads(sys.argv[2]), 30)
workers.watch(lambda: "What to do.")
print("met", flush=True)
word = sys.stdin.readline().strip()
if word:
    workers.leave(None if word == "done" else word)
else:
    time.sleep(60)
"""


@pytest.fixture
def sleepers():
    """Starts three of them; returns the processes once they have met."""
    addresses, processes = free_addresses(3), []
    for index in range(3):
        command = [sys.executable, "-c", SLEEPER.format(root=str(ROOT))]
        command += [tf_config(addresses, index), json.dumps(STATEMENT)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, text=True, **pipes))
    for process in processes:
        assert process.stdout.readline() == "met\n"
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("victim", [0, 1])
def test_the_loss_of_a_worker_ends_the_others_with_its_name(sleepers, victim):
    sleepers[victim].kill()
    for process in sleepers:
        if process is not sleepers[victim]:
            assert process.wait(20) == LOST
            name = ["worker 0, the chief", "worker 1"][victim]
            error = process.stderr.read()
            assert re.fullmatch(
                rf"main\.py: {name} \(\S+\) is gone, so the training ends\. What to do\.\n", error
            )


def test_who_is_done_leaves_and_who_fails_says_why(sleepers):
    def say(process, word):
        process.stdin.write(f"{word}\n")
        process.stdin.flush()

    say(sleepers[2], "done")
    assert sleepers[2].wait(20) == 0
    time.sleep(1)
    assert [process.poll() for process in sleepers[:2]] == [None, None]
    say(sleepers[1], "the disk is full")
    assert sleepers[0].wait(20) == LOST
    assert "ended: the disk is full, so the training ends." in sleepers[0].stderr.read()


def test_other_flags_are_refused_before_anything_is_written(tmp_path):
    words = [
        "--strategy",
        "multi_worker",
        "--data",
        "digits",
        "--worker_wait",
        "60",
        "--run_dir",
        str(tmp_path / "run"),
    ]
    processes = Processes(2, lambda index: [*words, "--seed", str(index)])
    assert processes.wait() == [2, 2]
    for output in processes.outputs:
        assert re.fullmatch(
            r"main\.py: error: worker 1 \(\S+\) has --seed 1 instead of 0: all workers need the same\.\n",
            output,
        )
    assert not (tmp_path / "run").exists()


def replicas(kind, count, *models):
    """Runs tests/replicas.py, as one process or as workers: digests of each, and differences by model."""
    command = [sys.executable, str(ROOT / "tests" / "replicas.py"), kind, str(count), *models]
    addresses = free_addresses(count)
    environments = [{**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "TF_NUM_INTRAOP_THREADS": "1"}]
    if kind == "worker":
        environments = [{**environments[0], "TF_CONFIG": tf_config(addresses, i)} for i in range(count)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=environment, **pipes) for environment in environments]
    outputs = [process.communicate() for process in processes]
    assert not any(process.returncode for process in processes), outputs
    digests = [re.findall(r"(\w+) digest (\w+)", output) for output, _ in outputs]
    found = {name: float(value) for name, value in re.findall(r"(\w+) difference (\S+)", outputs[0][0])}
    return digests, found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_freed_memory_is_kept():
    def new_pages(word):
        command = [sys.executable, "-c", NEW_PAGES, word]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    assert new_pages("given back") > 10 * new_pages("kept")


def test_two_workers_make_the_step_of_one():
    digests, found = replicas("worker", 2, "conditional")
    assert found["conditional"] < 1e-4
    assert digests[0] == digests[1]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("mirrored", 2), ("mirrored", 3), ("worker", 2), ("worker", 3)])
def test_several_replicas_make_the_weights_of_one(kind, count):
    digests, found = replicas(kind, count)
    assert found.keys() == {"unsupervised", "supervised", "semi_supervised", "clustering", "conditional"}
    assert max(found.values()) < 1e-4
    assert all(one == digests[0] for one in digests)


@pytest.fixture
def stand_ins(tmp_path):
    """A folder of programs for PATH: what the files for clusters call; python prints what it got as JSON."""
    python = f"#!{sys.executable}\nimport json, os, sys\n"
    python += (
        'if "slurm_tf_config" in sys.argv[1]: os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n'
    )
    python += 'print(json.dumps([sys.argv[1:], os.environ.get("TF_CONFIG")]))\n'
    srun = "#!/bin/bash\nexport SLURM_PROCID=2 SLURM_LOCALID=0 SLURMD_NODENAME=n10 SLURM_STEP_NUM_TASKS=3\n"
    srun += 'export SLURM_STEP_NODELIST="n[9-10]" SLURM_STEP_TASKS_PER_NODE=2,1\n"$@"; exit "${STATUS:-0}"\n'
    scontrol = '#!/bin/bash\necho scontrol "$@"\n'
    for name, text in {"python": python, "srun": srun, "scontrol": scontrol}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.mark.slow
def test_the_slurm_script_starts_each_worker_as_who_it_is(stand_ins, tmp_path):
    run = tmp_path / "run"
    environment = {**stand_ins, "SLURM_JOB_ID": "7", "RUN_DIR": str(run), "SLURM_SUBMIT_DIR": str(ROOT)}
    command = [str(ROOT / "configs" / "cluster" / "slurm.sh"), "--n_z", "2"]
    assert os.stat(command[0]).st_mode & stat.S_IXUSR
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    words, text = json.loads(result.stdout)
    assert words == ["-u", "main.py", "--n_z", "2", "--strategy", "multi_worker", "--run_dir", str(run)]
    # Ranks 0 and 1 are on n9, which the resolver sorts behind n10.
    assert read_cluster(text) == Cluster(("n10:8888", "n9:8888", "n9:8889"), 0)
    run.mkdir()
    (run / "config.json").touch()
    environment["STATUS"] = str(LOST)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == LOST
    line, requeued = result.stdout.splitlines()
    assert json.loads(line)[0] == ["-u", "main.py", "--resume", "--run_dir", str(run)]
    assert requeued == "scontrol requeue 7"


def test_the_kubernetes_job_starts_each_worker_as_who_it_is(stand_ins):
    service, job = yaml.safe_load_all((ROOT / "configs" / "cluster" / "kubernetes.yaml").read_text())
    pod, name = job["spec"]["template"]["spec"], service["metadata"]["name"]
    container = pod["containers"][0]
    assert pod["subdomain"] == name
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert int(variables["WORKERS"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    environment = {**stand_ins, **variables, "JOB_COMPLETION_INDEX": "1"}
    result = subprocess.run(container["command"], env=environment, capture_output=True, text=True, check=True)
    words, text = json.loads(result.stdout)
    assert read_cluster(text) == Cluster(("aae-0.aae:2222", "aae-1.aae:2222"), 1)
    settings = main.read_config(["main.py", *words[2:]])
    assert (settings.strategy, settings.prior) == ("multi_worker", "gaussian_mixture")


def test_the_strategy_of_earlier_runs_is_one_device():
    fields = {field.name: field for field in dataclasses.fields(Config)}
    assert fields["strategy"].metadata["before"] == "none"


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_a_killed_worker_ends_all_and_a_resumed_run_is_exact(count, tmp_path):
    words = ["--model", "supervised", *TRAININGS["supervised"], *COMMON, "--n_epoch", "5"]
    seconds = left_alone(tmp_path / "alone", words, count)
    _, problems = killed(tmp_path / "killed", words, count, 5, seconds, random.Random(count))
    assert problems + file_differences(tmp_path / "alone", tmp_path / "killed") == []


@pytest.mark.slow
def test_a_signal_to_one_worker_saves_and_stops_all(tmp_path):
    words = ["--model", "supervised", *TRAININGS["supervised"], *COMMON, "--n_epoch", "500"]
    workers = Processes(2, ["--run_dir", str(tmp_path / "run"), *words])
    workers.wait_for("\nepoch 1/")
    workers.processes[1].send_signal(signal.SIGTERM)
    assert workers.wait() == [128 + signal.SIGTERM] * 2
    for output in workers.outputs:
        assert "main.py: stopped by SIGTERM. The last checkpoint is epoch_" in output
    saved = saved_checkpoints(tmp_path / "run" / "checkpoints")
    assert read_description(tmp_path / "run" / "checkpoints" / saved[-1].name)


@pytest.mark.slow
def test_a_worker_that_hangs_is_named(tmp_path):
    """Its connections stay open, so that only TensorFlow's heartbeat tells."""
    words = ["--model", "supervised", *TRAININGS["supervised"], *COMMON, "--n_epoch", "500"]
    workers = Processes(2, ["--run_dir", str(tmp_path / "run"), *words])
    workers.wait_for("\nepoch 1/")
    workers.processes[1].send_signal(signal.SIGSTOP)
    assert workers.processes[0].wait(120) == LOST
    assert re.search(r"main\.py: worker 1 \(\S+\) does not answer any more, so", workers.outputs[0])
    workers.processes[1].kill()
    workers.wait()


@pytest.mark.slow
def test_two_workers_that_stream_end_as_two_that_hold(tmp_path, monkeypatch):
    """Both find no shards, and prepare them at the same time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["--model", "dimensionality_reduction", "--data", "digits", "--n_hidden", "16", "--n_z", "2"]
    words += ["--num_samples", "40", "--n_epoch", "2", "--strategy", "multi_worker"]
    for name, further in (("held", []), ("streamed", ["--stream"])):
        runs = Processes(2, [*words, *further, "--run_dir", str(tmp_path / name)])
        assert not any(runs.wait()), runs.outputs
    assert file_differences(tmp_path / "held", tmp_path / "streamed") == []


@pytest.mark.slow
def test_the_figures_of_two_workers_lie_within_the_spread_over_seeds(tmp_path):
    """With the usual draws, which differ: the difference of the means over seeds."""
    words = ["--model", "supervised", "--data", "digits", "--prior", "gaussian_mixture", "--n_z", "2"]
    words += ["--n_hidden", "64", "--n_epoch", "20", "--batch_size", "64"]
    found = {}
    for count in (1, 2):
        for seed in range(4):
            directory = tmp_path / f"{count}_{seed}"
            several = ["--strategy", "multi_worker"] if count > 1 else ["--strategy", "none"]
            runs = Processes(count, [*words, *several, "--seed", str(seed), "--run_dir", str(directory)])
            assert not any(runs.wait()), runs.outputs
            metrics = json.loads((directory / "metrics.json").read_text())
            found.setdefault(count, []).append(
                [metrics["test_reconstruction_mse"], metrics["test_component_accuracy"]]
            )
    one, two = (np.array(found[count]) for count in (1, 2))
    spread = np.sqrt(one.var(axis=0, ddof=1) / 4 + two.var(axis=0, ddof=1) / 4)
    assert (np.abs(one.mean(axis=0) - two.mean(axis=0)) < 3.5 * spread + 1e-4).all(), found
