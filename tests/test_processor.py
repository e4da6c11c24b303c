"""What is made of the processor's instructions."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from training.run import Run
from utils import processor

ZEN_2, ZEN_4 = "fma avx2 f16c", "fma avx2 avx512f avx512_bf16"
SAPPHIRE_RAPIDS = f"{ZEN_4} amx_bf16"


@pytest.fixture
def on(tmp_path, monkeypatch):
    """Puts the program on a processor with these flags, without a GPU unless one is asked for."""

    def put(flags, gpu=False, limit=None):
        (tmp_path / "cpuinfo").write_text(f"model name\t: A\nflags\t\t: {flags}\n\nflags\t\t: other\n")
        monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(processor, "GPU", tmp_path / ("cpuinfo" if gpu else "none"))
        for name in ("ONEDNN_MAX_CPU_ISA", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)
        if limit:
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)

    return put


@pytest.mark.parametrize(
    ("flags", "limit", "expected"),
    [
        (ZEN_2, None, "float32"),
        (ZEN_4, None, "bfloat16"),
        (SAPPHIRE_RAPIDS, None, "bfloat16"),
        (SAPPHIRE_RAPIDS, "AVX512_CORE_BF16", "bfloat16"),
        (SAPPHIRE_RAPIDS, "AVX512_CORE", "float32"),
        (SAPPHIRE_RAPIDS, "avx2", "float32"),
        (SAPPHIRE_RAPIDS, "DEFAULT", "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(on, flags, limit, expected):
    on(flags, limit=limit)
    assert processor.precision("auto") == expected


def test_gpus_have_the_names_that_the_driver_says(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(processor, "GPU_NAMES", ("printf", "NVIDIA A\nNVIDIA B\n"))
    assert processor.gpus() == ("NVIDIA A", "NVIDIA B")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert processor.gpus() == ()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for fails in ("false", str(tmp_path / "absent")):
        monkeypatch.setattr(processor, "GPU_NAMES", (fails,))
        assert processor.gpus() == ()


def test_auto_is_float32_on_a_gpu_that_is_not_hidden_and_elsewhere(on, tmp_path, monkeypatch):
    on(SAPPHIRE_RAPIDS, gpu=True)
    assert processor.precision("auto") == "float32"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # the GPU is hidden
    assert processor.precision("auto") == "bfloat16"
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "missing")
    assert processor.precision("auto") == "float32"
    assert processor.instructions() == ()


@pytest.mark.parametrize(("gpu", "steps", "epochs"), [(False, 429, 1), (False, 41, 3), (True, 429, 12)])
def test_checkpoints_are_rarer_where_steps_are_short(on, gpu, steps, epochs):
    on(ZEN_4, gpu=gpu)
    assert Run.epochs_between_checkpoints.fget(SimpleNamespace(steps_per_epoch=steps)) == epochs


def test_a_named_precision_stands(on):
    on(ZEN_2)
    assert [processor.precision(name) for name in ("float32", "bfloat16")] == ["float32", "bfloat16"]


def test_the_kernels_name_instructions_and_onednn(on, monkeypatch):
    on(ZEN_4)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert processor.kernels() == {"instructions": "avx2 avx512f avx512_bf16", "oneDNN": "off"}


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="of x86 processors")
@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_whoever_imports_models_gets_onednn_unless_it_is_set(given, expected):
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    if given:
        environment["TF_ENABLE_ONEDNN_OPTS"] = given
    code = "import os, sys, models; print(os.environ['TF_ENABLE_ONEDNN_OPTS'], 'tensorflow' in sys.modules)"
    words = [sys.executable, "-c", code]
    answer = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [expected, "False"]


def test_a_run_notes_what_auto_found_and_warns_of_slow_bfloat16(on, tmp_path, capsys):
    from main import read_config
    from training.run import prepare_run
    from training.saved_config import read_saved_config

    def prepared(*words):
        run = prepare_run(read_config(["main.py", "--data=digits", f"--run_dir={tmp_path / 'run'}", *words]))
        run.lock.close()
        return run

    on(ZEN_4)
    assert prepared("--precision=auto").config.precision == "bfloat16"
    assert read_saved_config(tmp_path / "run")[0].precision == "bfloat16"
    assert "warning" not in capsys.readouterr().out
    on(ZEN_2)
    # The run goes on as it began, where auto would now choose otherwise; that is slow.
    assert prepared("--precision=auto", "--resume").config.precision == "bfloat16"
    assert "no bfloat16 instructions" in capsys.readouterr().out


def test_a_model_is_made_with_what_auto_found(on, make_model):
    on(ZEN_4)
    assert make_model(precision="auto").get_config()["precision"] == "bfloat16"
    on(ZEN_2)
    assert make_model(precision="auto").get_config()["precision"] == "float32"
