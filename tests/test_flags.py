import dataclasses
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import main
from data import DATASETS
from data.loading import load_data
from models import MODELS
from models.settings import ABOVE_ZERO
from priors import PLANAR_PRIORS, PRIORS
from training.recipes import with_data
from training.run import prepare_run
from training.schedules import count_plateaus
from training.settings import Config
from training.use_settings import USES
from utils.errors import UserError
from utils.files import write_json
from utils.settings import meaningless

FLAGS = [field.name for field in dataclasses.fields(Config)]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Every test starts in an empty folder, without a data folder in the environment."""
    monkeypatch.delenv("AAE_DATA_DIR", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def read(line):
    """Reads a command line, given as one string."""
    return main.read_config(["main.py", *shlex.split(line)])


def refusal(line):
    """The one line with which a command line is refused."""
    with pytest.raises(UserError) as caught:
        read(line)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# Reading


def test_defaults():
    config = read("")
    assert config == Config(clean_epoch=50)
    assert (config.model, config.prior, config.data) == ("supervised", "gaussian", "auto")
    assert (config.n_z, config.n_hidden, config.n_epoch, config.batch_size) == (20, 1000, 100, 0)
    assert (config.lr_start, config.lr_mid, config.lr_end) == (1e-3, 1e-4, 1e-4)
    assert (config.keep_prob, config.num_samples, config.seed) == (0.9, 5000, 0)
    assert (config.PMLR, config.PARR, config.noised, config.resume) == (False, False, True, False)


def test_every_flag_arrives(flagfile):
    changed = Config(
        prior="swiss_roll",
        n_z=2,
        PMLR=True,
        data="digits",
        data_dir="some where",
        n_hidden=7,
        n_epoch=8,
        batch_size=9,
        keep_prob=1.0,
        lr_start=0.1,
        lr_mid=0.2,
        lr_end=3e-5,
        noised=False,
        num_samples=10,
        seed=11,
        run_dir="there",
    )
    values = dataclasses.asdict(changed)
    del values["resume"]  # needs a run
    words = [f"--{name}={value}" for name, value in values.items()]
    assert read(f"--flagfile={flagfile(chr(10).join(words))}") == changed
    # On the command line, those that mean something beside the others.
    of_use = {name: value for name, value in values.items() if not meaningless(changed, name)}
    assert {"prior", "n_z", "keep_prob", "lr_end", "data_dir", "seed"} <= of_use.keys()
    words = [part for name, value in of_use.items() for part in (f"--{name}", str(value))]
    defaults = {name: getattr(Config(), name) for name in values.keys() - of_use.keys()}
    assert main.read_config(["main.py", *words]) == dataclasses.replace(changed, **defaults)


TRUE = "--PMLR, --PMLR True, --PMLR=true, --PMLR yes, --PMLR=on, --PMLR 1, --PMLR=TRUE, -PMLR y"
FALSE = "--noPMLR, --PMLR False, --PMLR=false, --PMLR no, --PMLR=Off, --PMLR 0, -PMLR n"


@pytest.mark.parametrize(
    ("words", "value"),
    [
        *((words, True) for words in TRUE.split(", ")),
        *((words, False) for words in FALSE.split(", ")),
    ],
)
@pytest.mark.parametrize("line", ["{} --n_z 2", "--n_z 2 {}", "--n_z=2 --PMLR {} --seed 3"])
def test_booleans(words, value, line):
    # The last spelling counts, and the flags around it are read.
    config = read(line.format(words))
    assert config.PMLR is value
    assert config.n_z == 2
    assert config.seed == (3 if "seed" in line else 0)


def test_a_boolean_flag_that_is_true_by_default():
    assert read("--noised False").noised is False
    assert read("--nonoised").noised is False


@pytest.mark.parametrize("words", ["--PMLR maybe", "--PMLR=2", "--PMLR=", "--PMLR False True"])
def test_what_is_no_boolean_is_refused(words):
    assert refusal(f"{words} --n_z 2")


@pytest.mark.parametrize("alias", ["super_n_hidden", "semi_n_hidden", "n_hidden"])
def test_aliases_of_n_hidden(alias):
    assert read(f"--{alias} 3000").n_hidden == 3000
    assert read(f"--{alias}=30 --n_z 4").n_hidden == 30


@pytest.mark.parametrize(
    ("line", "mentioned"),
    [
        ("--prior gaussian stray", "'stray'"),
        ("train --n_z 4", "'train'"),
        ("-- --n_z", "'--n_z'"),
        ("--priorr gaussian", "prior"),
        ("--n_zz 2", "n_z"),
        ("--n_z two", "n_z"),
        ("--n_z 2.5", "n_z"),
        ("--n_z", "n_z"),
        ("--lr_start fast", "lr_start"),
        ("--flagfile=absent.flags", "absent.flags"),
        ("--flagfile", "flagfile"),
    ],
)
def test_what_cannot_be_read_is_named(line, mentioned):
    assert mentioned in refusal(line)


def test_an_unknown_flag_suggests_the_close_one():
    message = refusal("--priorr gaussian")
    assert "priorr" in message
    # Apart from the wrong word itself.
    assert "prior" in message.replace("priorr", "")


@pytest.mark.parametrize(
    ("flag", "value", "closest", "choices"),
    [
        ("prior", "swissroll", "swiss_roll", PRIORS),
        ("prior", "gausian", "gaussian", PRIORS),
        ("model", "supervized", "supervised", MODELS),
        ("data", "minst", "mnist", DATASETS),
        ("data", "Fashion", "fashion_mnist", DATASETS),
    ],
)
def test_an_unknown_choice_names_the_closest_and_all(flag, value, closest, choices):
    message = refusal(f"--{flag} {value}")
    assert f"--{flag}" in message
    assert f"did you mean {closest!r}" in message
    assert all(choice in message for choice in choices)


def test_a_choice_like_no_other_gets_no_suggestion():
    message = refusal("--data xyz")
    assert "did you mean" not in message
    assert all(choice in message for choice in DATASETS)


@pytest.mark.parametrize(
    ("flag", "value", "name"),
    [
        ("data", "MNIST", "mnist"),
        ("data", "CIFAR_10", "cifar10"),
        ("data", "cifar-10", "cifar10"),
        ("data", "CIFAR10", "cifar10"),
        ("data", "Fashion-MNIST", "fashion_mnist"),
        ("prior", "Swiss-Roll", "swiss_roll"),
        ("model", "Supervised", "supervised"),
    ],
)
def test_spellings_of_names(flag, value, name):
    assert getattr(read(f"--{flag} {value}"), flag) == name


def test_the_data_dir_of_the_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("AAE_DATA_DIR", "from_environment")
    assert read("").data_dir == "from_environment"
    assert read("--data_dir named").data_dir == "named"


# Flag files


@pytest.fixture
def flagfile(empty_folder):
    """Writes a flag file and returns its name."""

    def write(text):
        (empty_folder / "some.flags").write_text(text)
        return "some.flags"

    return write


@pytest.mark.parametrize("option", ["--flagfile=", "--flagfile "])
def test_flagfile(flagfile, option):
    lines = ("# A comment.", "", "--n_z=2", "--PMLR True", "--noised False", "--lr_start 0.01")
    name = flagfile("\n".join(lines))
    assert read(option + name) == Config(
        n_z=2,
        PMLR=True,
        noised=False,
        lr_start=0.01,
        g_rate=1.0,
        d_label="output",
        d_distortion=0.2,
        clean_epoch=90,
    )


def test_the_later_of_flag_file_and_flag_counts(flagfile):
    name = flagfile("--n_z 4\n--PMLR False\n")
    assert read(f"--flagfile={name} --n_z 2").n_z == 2
    assert read(f"--n_z 2 --flagfile={name}").n_z == 4
    assert read(f"--flagfile={name} --PMLR --n_z 2").PMLR is True


@pytest.mark.parametrize("before", ["--PMLR False", "--PMLR=False", "--noPMLR", "--noised no"])
def test_flagfile_after_a_boolean(flagfile, before):
    name = flagfile("--n_z 4\n--PARR False\n")
    assert read(f"{before} --flagfile={name}").n_z == 4


def test_flagfile_inside_a_flagfile(flagfile, empty_folder):
    (empty_folder / "inner.flags").write_text("--n_z 6\n--PMLR False\n")
    name = flagfile("--seed 1\n--flagfile=inner.flags\n--n_hidden 5\n")
    assert read(f"--flagfile {name}") == Config(seed=1, n_z=6, n_hidden=5, clean_epoch=50)


def test_flagfiles_that_name_each_other(flagfile, empty_folder):
    (empty_folder / "inner.flags").write_text("--flagfile=some.flags\n")
    for text in ("--flagfile=inner.flags\n", "--flagfile=some.flags\n"):
        assert "names itself" in refusal(f"--flagfile={flagfile(text)}")


def test_flagfiles_that_would_double_without_end(empty_folder):
    for index in range(9):
        (empty_folder / f"{index}.flags").write_text(f"--flagfile={index + 1}.flags\n" * 10)
    (empty_folder / "9.flags").touch()
    assert "too many lines" in refusal("--flagfile=0.flags")


def test_a_long_chain_of_flagfiles(empty_folder):
    for index in range(2000):
        (empty_folder / f"{index}.flags").write_text(f"--flagfile={index + 1}.flags\n")
    assert "in a row" in refusal("--flagfile=0.flags")


@pytest.mark.parametrize("path", ["../outside.flags", "/etc/passwd", "link.flags", "~/outside.flags"])
def test_a_flagfile_does_not_lead_out_of_its_folder(flagfile, empty_folder, monkeypatch, path):
    monkeypatch.setenv("HOME", str(empty_folder.parent))
    (empty_folder.parent / "outside.flags").write_text("--n_z 4\n")
    (empty_folder / "link.flags").symlink_to("../outside.flags")
    assert "outside the folder" in refusal(f"--flagfile={flagfile(f'--flagfile={path}')}")
    # Whoever starts the program may name any file.
    assert read("--flagfile=../outside.flags").n_z == 4


def test_flagfiles_that_cannot_be_read(empty_folder):
    os.mkfifo(empty_folder / "pipe")
    (empty_folder / "folder").mkdir()
    (empty_folder / "large").write_text("#" * 2**21)
    (empty_folder / "binary").write_bytes(b"--n_z\xff")
    (empty_folder / "nul").write_text("--flagfile=\0")
    for name in ("pipe", "folder", "large", "binary", "nul", "/dev/zero", "x" * 300):
        assert "cannot be read" in refusal(f"--flagfile={name}")


@pytest.mark.parametrize("name", ["data_dir", "run_dir"])
@pytest.mark.parametrize("value", ["a\nb", "a\0b", "\udcff", "\x1b[31m", "x" * 256, "x/" * 3000])
def test_paths_that_cannot_be(name, value):
    with pytest.raises(UserError, match=name) as caught:
        main.read_config(["main.py", f"--{name}={value}"])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1100


def test_paths_in_any_script():
    assert main.read_config(["main.py", "--run_dir=Läufe/走る/été 1"]).run_dir == "Läufe/走る/été 1"


@pytest.mark.parametrize(
    ("text", "mentioned"), [("--n_zz 3\n", "n_z"), ("stray\n", "stray"), ("--n_z 0\n", "n_z")]
)
def test_mistakes_in_a_flagfile(flagfile, text, mentioned):
    assert mentioned in refusal(f"--flagfile={flagfile(text)}")


def test_a_flagfile_that_is_no_text(empty_folder):
    (empty_folder / "picture.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    assert refusal("--flagfile=picture.png")


CONFIGS = sorted((ROOT / "configs").glob("*.flags"))


def test_there_are_flag_files():
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_flag_file_of_the_project(path):
    config = main.read_config(["main.py", f"--flagfile={path}"])
    assert config != Config()
    source = path.stem.split("_")[0]
    assert config.recipe == ("paper" if source == "paper" else "seed")
    wide = source == "seed" or path.stem.startswith("paper_clustering")
    narrow = path.stem in ("best_clustering", "best_dimensionality_reduction")
    assert config.n_hidden == (3000 if wide else 400 if narrow else 1000)
    if source == "freiburg":
        assert (config.model == "conditional") == path.stem.endswith("_y")
        assert config.network in path.stem
        assert config.data.replace("_", "") in path.stem
    else:
        assert config.model in path.stem
        assert config.prior in path.stem or config.prior == "gaussian"


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(n_z=2, PMLR=True, prior="swiss_roll", noised=False, lr_start=1e-5, keep_prob=1.0),
        Config(data="digits", data_dir="a folder/with spaces", n_hidden=3, seed=2**31 - 1),
    ],
    ids=["defaults", "plane", "spaces"],
)
def test_flag_lines_repeat_the_configuration(flagfile, config):
    name = flagfile("\n".join(config.flag_lines()) + "\n")
    assert read(f"--flagfile={name}") == config


def test_flag_lines_leave_out_what_belongs_to_one_run():
    text = "\n".join(Config(run_dir="there", resume=True).flag_lines())
    assert "run_dir" not in text
    assert "resume" not in text
    left_out = ("run_dir", "resume", "prepare", *USES)
    assert all(f"--{name}=" in text for name in FLAGS if name not in left_out)


# Flags that have no effect beside the others

IDLE = {
    "--model unsupervised --num_samples 10": "--model unsupervised",
    "--ce_rate 2": "--model supervised",
    "--model semi_supervised --cycle false --cycle_rate 2": "--cycle False",
    "--model semi_supervised --consistency_rate 2": "--consistency False",
    "--model supervised --consistency --consistency_rate 2": "--model supervised",
    "--model supervised --consistency_ramp 9": "--consistency False",
    "--model conditional --consistency": "--model conditional",
    "--model clustering --distortion 0.2": "--consistency False",
    "--model semi_supervised --vat_radius 1": "--consistency False",
    "--model semi_supervised --consistency --vat_ramp 9": "--vat_radius 0.0",
    "--model clustering --vat_radius 1": "--consistency False",
    "--model conditional --nojoint_discriminator": "--model conditional",
    "--image_size 64 --data digits": "--data digits",
    "--conv_widths 8,8": "--network dense",
    "--noised false --noise_std 0.1": "--noised False",
    "--lr_schedule plateau --lr_mid 1e-4": "--lr_schedule plateau",
    "--lr_patience 3": "--lr_schedule step",
    "--momentum 0.5": "--optimizer adam",
    "--traversal_axes 1": "--animate False",
}


@pytest.mark.parametrize(("line", "reason"), IDLE.items())
def test_flags_without_effect_are_refused_on_the_command_line(flagfile, line, reason):
    message = refusal(line)
    assert "has no effect with" in message
    assert reason in message
    # A flag file may hold them, as flags.txt of every run does.
    assert read(f"--flagfile={flagfile(line.replace(' --', chr(10) + '--'))}")


def test_every_condition_names_a_setting_and_values_that_it_can_have():
    fields = {field.name: field for field in dataclasses.fields(Config)}
    for field in fields.values():
        for other, values in (field.metadata["only"] or {}).items():
            if values is ABOVE_ZERO:
                assert isinstance(fields[other].default, (int, float))
                assert (0.5 in values, 0.0 in values, "0.5" in values) == (True, False, False)
                continue
            for value in values:
                Config(**{other: value, "data_dir": "here"})
                assert type(value) is type(fields[other].default)
                assert value in fields[other].metadata["choices"] or isinstance(value, int)


# Values that cannot work

BAD_VALUES = {
    "--PMLR --n_z 20": "n_z 2",
    "--PMLR True": "n_z 2",
    "--PARR": "PARR",
    "--PARR --model supervised --n_z 2": "PARR",
    "--prior gaussian_mixture --n_z 3": "even",
    "--prior swiss_roll --n_z 5": "even",
    "--keep_prob 0": "keep_prob",
    "--keep_prob 1.2": "keep_prob",
    "--keep_prob -0.5": "keep_prob",
    "--keep_prob nan": "keep_prob",
    "--batch_size -1": "batch_size",
    "--batch_size -128": "batch_size",
    "--n_epoch 0": "n_epoch",
    "--n_z 0": "n_z",
    "--n_z -2": "n_z",
    "--n_hidden 0": "n_hidden",
    "--super_n_hidden 0": "n_hidden",
    "--num_samples 0": "num_samples",
    "--d_noise -0.1": "d_noise",
    "--d_noise nan": "d_noise",
    "--noise_std -1": "noise_std",
    "--shift -1": "shift",
    "--shift 9": "shift",
    "--d_hidden -1": "d_hidden",
    "--network convolutional": "conv",
    "--conv_widths 16,0": "conv_widths",
    "--conv_widths 16;32": "conv_widths",
    "--conv_widths=": "conv_widths",
    "--conv_widths 16,10000": "conv_widths",
    "--activation elu": "relu",
    "--traversal_axes 1;2": "traversal_axes",
    "--traversal_axes 0": "traversal_axes",
    "--n_z 5 --traversal_axes 1,6": "from 1 to 5",
    "--traversal_samples 0": "traversal_samples",
    "--traversal_samples 10": "traversal_samples",
    "--output linear": "sigmoid",
    "--balance --optimizer sgd": "adam",
    "--balance --recipe paper": "adam",
    "--lr_schedule plato": "plateau",
    "--lr_patience 0": "lr_patience",
    "--momentum 1": "momentum",
    "--momentum -0.1": "momentum",
    "--gan_momentum 1": "gan_momentum",
    "--init_std -1": "init_std",
    "--lr_mid_epoch -1": "lr_mid_epoch",
    "--lr_mid_epoch 60 --lr_end_epoch 59": "lr_end_epoch",
    "--recipe papr": "paper",
    "--optimizer adm": "adam",
    "--precision float16": "bfloat16",
    "--seed -1": "seed",
    f"--seed {2**31}": "seed",
    "--resume": "run_dir",
    "--checkpoint_every 500": "checkpoint_every",
    "--checkpoint_every=0steps": "checkpoint_every",
    "--checkpoint_every=10seconds": "checkpoint_every",
    "--n_z abc": "--n_z must be a whole number, got 'abc'",
    "--n_z 2.5": "--n_z must be a whole number, got '2.5'",
    "--lr_start 1e": "--lr_start must be a number such as 0.1 or 1e-3, got '1e'",
    "--network conv --conv_widths 16,a": "such as 16,32,64, got '16,a'",
    "supervised": "did you mean --model supervised?",
    "swiss-roll": "did you mean --prior swiss-roll?",
    **{
        f"--{name} {value}": name
        for name in ("lr_start", "lr_mid", "lr_end", "lr_floor", "d_rate", "g_rate", "ce_rate")
        for value in ("0", "-1e-3", "nan", "inf", "-inf")
    },
}


@pytest.mark.parametrize(("line", "mentioned"), BAD_VALUES.items())
def test_values_that_cannot_work(line, mentioned):
    assert mentioned in refusal(line)


@pytest.mark.parametrize(
    "line",
    [
        "--keep_prob 1",
        "--n_z 1",
        "--batch_size 1",
        "--n_epoch 1",
        f"--seed {2**31 - 1}",
        "--lr_end 1e-9",
        "--d_noise 0",
        *(f"--prior {prior} --n_z 4" for prior in sorted(PLANAR_PRIORS)),
        *(f"--prior {prior} --n_z 2 --PMLR" for prior in PRIORS),
    ],
)
def test_values_at_the_limit_work(line):
    assert read(line) != Config()


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 3.0), (49, 3.0), (50, 2.0), (51, 2.0), (99, 2.0), (100, 1.0), (101, 1.0), (10_000, 1.0)],
)
def test_learning_rate_steps_after_50_and_100_epochs(epoch, rate):
    config = Config(lr_start=3.0, lr_mid=2.0, lr_end=1.0, d_rate=0.5, g_rate=2.0)
    assert config.learning_rates(epoch) == {"ae": rate, "d": rate / 2, "g": rate * 2}


@pytest.mark.parametrize(
    ("errors", "plateaus"),
    [
        ([], 0),
        ([3, 2, 1, 0.9], 0),
        ([1, 1], 0),
        ([1, 1, 1], 1),
        # Less than a thousandth is no improvement.
        ([1, 0.9995, 0.9991], 1),
        ([1, 0.998, 0.997, 0.996], 0),
        # A fall begins the count anew, and so does a better error.
        ([1, 1, 1, 1], 1),
        ([1, 1, 1, 1, 1], 2),
        ([1, 1, 1, 0.5, 1, 1], 2),
        ([1, 1, 0.9, 1, 0.8, 1], 0),
    ],
)
def test_plateaus_of_patience_2(errors, plateaus):
    assert count_plateaus(errors, 2) == plateaus


def test_plateau_schedule_divides_every_rate_by_5_down_to_the_floor():
    config = Config(
        lr_schedule="plateau", lr_patience=1, lr_start=2e-4, lr_floor=1e-5, d_rate=0.5, g_rate=2.0
    )
    for falls, rate in enumerate([2e-4, 4e-5, 1e-5, 1e-5]):
        rates = config.learning_rates(99, [1.0] * (falls + 1))
        assert rates == pytest.approx({"ae": rate, "d": rate / 2, "g": rate * 2})
    # The step schedule has no say, however late it is.
    assert config.learning_rates(10_000, [3.0, 2.0, 1.0])["ae"] == 2e-4


@pytest.mark.parametrize("line", ["--lr_mid_epoch 3", "--lr_schedule plateau --lr_patience 1"])
def test_d_can_keep_its_first_rate(line):
    falling, staying = read(f"{line} --d_rate 0.5"), read(f"{line} --d_rate 0.5 --nod_rate_falls")
    errors = [1.0] * 4
    assert falling.learning_rates(0) == staying.learning_rates(0)
    late = falling.learning_rates(4, errors)
    assert late["ae"] < 1e-3
    assert late["d"] == late["ae"] / 2
    assert staying.learning_rates(4, errors) == late | {"d": 5e-4}


# The program as a whole


def assert_refused(line, folder, capsys):
    """`main` answers with one line on stderr and status 2, and leaves no file; returns the line."""
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert main.main(["main.py", *shlex.split(line)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("main.py: error: ")
    assert output.err.endswith("\n")
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert sorted(folder.rglob("*")) == before
    return output.err


@pytest.mark.parametrize(
    "line",
    [
        "--n_zz 2",
        "--n_z two",
        "stray",
        "--prior gausian",
        "--PMLR --n_z 20",
        "--keep_prob 0",
        "--resume",
        "--resume --run_dir absent",
        "--flagfile=absent",
        "--data mnist --data_dir absent",
        "--batch_size 2000 --data digits",
        "--network conv --conv_widths 8,8,8,8 --data digits",
    ],
)
def test_mistakes_are_answered_in_one_line(line, empty_folder, capsys):
    assert_refused(line, empty_folder, capsys)


def test_a_batch_larger_than_the_data(empty_folder, capsys):
    line = assert_refused("--data digits --batch_size 2000", empty_folder, capsys)
    assert "2000" in line
    assert "digits" in line


def test_images_that_the_strides_do_not_allow(empty_folder, capsys):
    line = assert_refused("--data digits --network conv --conv_widths 8,8,8,8", empty_folder, capsys)
    assert "multiples of 8; these have 28 x 28 pixels" in line


def test_a_used_run_dir_is_refused(empty_folder, capsys):
    (empty_folder / "used").mkdir()
    (empty_folder / "used" / "notes.txt").write_text("mine")
    assert "used" in assert_refused("--data digits --run_dir used", empty_folder, capsys)
    assert (empty_folder / "used" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("run_dir", ["file", "file/below"])
def test_a_run_dir_that_cannot_be_a_folder(empty_folder, capsys, run_dir):
    (empty_folder / "file").write_text("mine")
    assert "file" in assert_refused(f"--data digits --run_dir {run_dir}", empty_folder, capsys)


@pytest.mark.parametrize("line", ["--help", "-h", "--n_z 2 --help", "--PMLR False --help"])
def test_help_lists_every_flag(line, empty_folder, capsys):
    assert main.main(["main.py", *shlex.split(line)]) == 0
    output = capsys.readouterr()
    for field in dataclasses.fields(Config):
        assert f"--{field.name}" in output.out or f"--[no]{field.name}" in output.out
        # absl breaks long lines, but no words.
        assert field.metadata["help"].split()[0] in output.out
    first, rest = output.out.split("\nModel:\n")
    assert "--prior" in first
    assert "--gan_momentum" in rest
    assert max(map(len, output.out.splitlines())) <= 110
    assert "--super_n_hidden" in output.out
    assert output.err == ""
    assert not list(empty_folder.iterdir())


def test_version(empty_folder, capsys):
    assert main.main(["main.py", "--version"]) == 0
    assert re.fullmatch(r"aae \d+\.\d+\n", capsys.readouterr().out)
    assert not list(empty_folder.iterdir())


def test_a_missing_flag_file_is_answered_with_those_beside_it():
    message = refusal(f"--flagfile={ROOT / 'configs' / 'freiburg_7.flags'}")
    assert "There is no flag file" in message
    assert "freiburg_6_celeba_conv.flags" in message


def test_flags_are_read_without_any_heavy_import():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import main;"
        "main.read_config(['main.py', '--n_z', '2', '--PMLR']);"
        "heavy = {'tensorflow', 'keras', 'numpy', 'sklearn', 'cv2', 'matplotlib'};"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == "loaded: []\n", result.stderr


# Run directories


def test_a_run_directory_is_prepared(empty_folder):
    run = prepare_run(read("--data digits --n_z 4 --run_dir new/run"))
    assert run.plots.is_dir()
    assert run.checkpoints.is_dir()
    assert len(run.data.test_images) == 359
    # What it notes down repeats the run.
    again = read(f"--flagfile={run.directory / 'flags.txt'}")
    assert dataclasses.replace(again, run_dir="new/run") == run.config
    # Nothing half-written is left.
    files = {path.name for path in (empty_folder / "new" / "run").iterdir()}
    assert files == {"plots", "checkpoints", "config.json", "flags.txt", ".lock"}


def test_an_empty_run_dir_is_taken(empty_folder):
    (empty_folder / "empty").mkdir()
    prepare_run(read("--data digits --run_dir empty"))
    assert (empty_folder / "empty" / "config.json").is_file()


def test_a_run_dir_is_chosen_after_the_settings(empty_folder):
    run = prepare_run(read("--data digits --prior swiss_roll --n_z 4"))
    assert run.directory.parent.name == "runs"
    assert all(part in run.directory.name for part in ("supervised", "swiss_roll", "z4", "digits"))


@pytest.mark.parametrize(
    ("n_images", "words", "batch_size"),
    [
        (12_799, "", 32),
        (12_800, "", 128),
        (12_799, " --batch_size 128", 128),
        (12_799, " --recipe paper", 100),
    ],
)
def test_small_data_get_small_batches(monkeypatch, empty_folder, n_images, words, batch_size):
    """Epochs of ten steps would end the training long before the codes are where they belong."""
    digits = load_data("digits")
    repeated = np.arange(n_images) % len(digits.train_images)
    images, labels = digits.train_images[repeated], digits.train_labels[repeated]
    data = dataclasses.replace(digits, train_images=images, train_labels=labels)
    monkeypatch.setattr("training.run.load_data", lambda *_: data)
    run = prepare_run(read(f"--data digits --run_dir run{words}"))
    assert run.config.batch_size == batch_size
    assert read("--flagfile=run/flags.txt --run_dir again").batch_size == batch_size


def test_a_run_notes_when_its_rate_falls(empty_folder):
    run = prepare_run(
        read("--data digits --prior swiss_roll --n_z 2 --batch_size 8 --n_epoch 8 --run_dir run")
    )
    assert run.config.lr_mid_epoch == 40  # 6,400 steps, 164 an epoch
    assert read("--flagfile=run/flags.txt --run_dir again").lr_mid_epoch == 40
    assert read("--resume --run_dir run --n_epoch 100").lr_mid_epoch == 40


@pytest.fixture
def saved(empty_folder):
    """The configuration of a run that was left in the folder `run`."""
    config = Config(prior="swiss_roll", n_z=2, n_epoch=5, data="digits", run_dir="run", seed=4)
    (empty_folder / "run").mkdir()
    write_json("run/config.json", {"flags": dataclasses.asdict(config), "data": {}})
    return config


def test_resume_takes_the_saved_configuration(saved):
    assert read("--resume --run_dir run") == dataclasses.replace(saved, resume=True)
    # What is named again may be named.
    line = "--resume True --run_dir run --n_z 2 --prior swiss-roll --seed=4 --data auto"
    assert read(line) == dataclasses.replace(saved, resume=True)


def test_a_resumed_run_may_have_been_moved(saved, empty_folder):
    (empty_folder / "run").rename(empty_folder / "moved")
    assert read("--resume --run_dir moved").run_dir == "moved"


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("--n_epoch 9", {"n_epoch": 9}),
        ("--PMLR", {"PMLR": True}),
        ("--data_dir there", {"data_dir": "there"}),
        ("--checkpoint_every=10minutes", {"checkpoint_every": "10minutes"}),
    ],
)
def test_what_may_change_on_resuming(saved, line, changes):
    expected = dataclasses.replace(saved, resume=True, **changes)
    assert read(f"--resume --run_dir run {line}") == expected


@pytest.mark.parametrize(
    ("saved_epochs", "resumed_epochs"),
    [(90, 140), (50, 50), (0, 0)],  # the default of 100 epochs; what was chosen, or an earlier default, stays
)
def test_a_longer_run_has_its_epochs_without_noise_at_the_new_end(empty_folder, saved_epochs, resumed_epochs):
    config = read(f"--prior gaussian_mixture --n_z 2 --run_dir run --clean_epoch {saved_epochs}")
    (empty_folder / "run").mkdir()
    write_json("run/config.json", {"flags": dataclasses.asdict(config), "data": {}})
    assert read("--resume --run_dir run").clean_epoch == saved_epochs
    assert read("--resume --run_dir run --n_epoch 150").clean_epoch == resumed_epochs
    assert read("--resume --run_dir run --n_epoch 150 --clean_epoch 70").clean_epoch == 70


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("--n_z 4", "n_z"),
        ("--n_z 20", "n_z"),  # the default is named on purpose, too
        ("--prior gaussian", "prior"),
        ("--super_n_hidden 5", "n_hidden"),
        ("--seed 0", "seed"),
        ("--noised False", "noised"),
        ("--lr_start 0.01", "lr_start"),
        ("--data mnist", "data"),
    ],
)
def test_what_must_not_change_on_resuming(saved, line, name):
    assert f"--{name}" in refusal(f"--resume --run_dir run {line}")


def test_the_resumed_configuration_is_validated(saved):
    assert "n_epoch" in refusal("--resume --run_dir run --n_epoch 0")


def test_resume_without_a_saved_configuration(empty_folder):
    (empty_folder / "run").mkdir()
    assert "config.json" in refusal("--resume --run_dir run")
    assert refusal("--resume --run_dir absent") == "--run_dir absent is no folder."


GOOD = '{"n_z": 2, "data": "digits"}'
DAMAGED = {
    "empty": "",
    "no JSON": "n_z = 2",
    "cut off": '{"flags": {"n_z": 2',
    "list": "[1, 2]",
    "no flags": '{"data": {}}',
    "no data": f'{{"flags": {GOOD}}}',
    "unknown flag": '{"flags": {"n_zz": 2}, "data": {}}',
    "flags are a list": '{"flags": [2], "data": {}}',
    "a value of another type": '{"flags": {"n_z": "two"}, "data": {}}',
    "a size of 2.5": '{"flags": {"n_z": 2.5, "data": "digits"}, "data": {}}',
    "a boolean as text": '{"flags": {"noised": "False", "data": "digits"}, "data": {}}',
    "a value of null": '{"flags": {"lr_start": null}, "data": {}}',
    "data are a list": f'{{"flags": {GOOD}, "data": []}}',
    "deep": "[" * 10**5,
    "a number of many digits": "1" * 5000,
    "no text": '"\ud800',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_resume_with_a_damaged_configuration(empty_folder, text):
    (empty_folder / "run").mkdir()
    (empty_folder / "run" / "config.json").write_text(text, errors="surrogatepass")
    with pytest.raises(UserError) as caught:
        prepare_run(read("--resume --run_dir run"))
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (empty_folder / "run" / "config.json").read_text(errors="surrogatepass") == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_hidden", 10**9),
        ("n_z", 10**30),
        ("n_epoch", 10**6),
        ("lr_start", float("nan")),
        ("d_noise", float("inf")),
    ],
)
def test_resume_with_impossible_values(saved, name, value):
    write_json("run/config.json", {"flags": dataclasses.asdict(saved) | {name: value}, "data": {}})
    assert name in refusal("--resume --run_dir run")


def test_resume_with_a_configuration_that_is_no_file(empty_folder):
    (empty_folder / "run").mkdir()
    os.mkfifo("run/config.json")
    assert "config.json" in refusal("--resume --run_dir run")


@pytest.mark.parametrize("name", ["plots", "checkpoints/epoch_00001.keras"])
def test_a_run_that_would_write_through_a_link_is_not_resumed(saved, empty_folder, name):
    (empty_folder / "run" / name).parent.mkdir(exist_ok=True)
    (empty_folder / "run" / name).symlink_to(empty_folder)
    assert f"{name} is a symbolic link" in refusal("--resume --run_dir run")


def test_a_prepared_run_is_prepared_again_to_resume():
    first = prepare_run(read("--data digits --n_z 4 --run_dir run"))
    first.lock.close()
    again = prepare_run(read("--resume --run_dir run"))
    assert dataclasses.replace(again.config, resume=False) == first.config
    assert again.data.describe() == first.data.describe()


def test_a_run_on_other_data_is_not_resumed(empty_folder, capsys):
    run = prepare_run(read("--data digits --run_dir run"))
    description = {**run.data.describe(), "train_images": 55_000}
    write_json("run/config.json", {"flags": dataclasses.asdict(run.config), "data": description})
    assert "train_images" in assert_refused("--resume --run_dir run", empty_folder, capsys)


def test_a_run_on_substitute_data_is_resumed(monkeypatch, empty_folder):
    monkeypatch.setattr("data.loading._reachable", lambda host: False)
    (empty_folder / "no_data").mkdir()
    first = prepare_run(read("--data auto --data_dir no_data --run_dir run"))
    first.lock.close()
    again = prepare_run(read("--resume --run_dir run"))
    # The warning must not get lost: pictures are drawn after resuming.
    assert "SUBSTITUTE" in first.data.note
    assert again.data.note == first.data.note


def test_flags_of_a_run_on_substitute_data_repeat_it(monkeypatch, empty_folder):
    monkeypatch.setattr("data.loading._reachable", lambda host: False)
    (empty_folder / "no_data").mkdir()
    first = prepare_run(read("--data auto --data_dir no_data --run_dir run"))
    again = prepare_run(read("--flagfile=run/flags.txt --run_dir again"))
    assert len(again.data.train_images) == len(first.data.train_images)
    assert again.config.data == first.config.data == "digits"


@pytest.mark.parametrize(
    ("line", "rate"),
    [
        ("--prior gaussian --n_z 20", 0.2),
        ("--prior gaussian --n_z 2", 1.0),
        ("--prior gaussian_mixture --n_z 20", 1.0),
        ("--prior swiss_roll --n_z 2", 1.0),
        ("--prior swiss_roll --n_z 2 --g_rate 0.5", 0.5),
        ("--model semi_supervised --n_z 20", 1.0),
        ("--model unsupervised --n_z 2", 1.0),
        ("--model unsupervised --n_z 3", 0.2),
        ("--recipe paper --n_z 2", 10.0),
    ],
)
def test_default_rate_of_g_follows_from_the_prior(line, rate):
    assert read(line).g_rate == rate


@pytest.mark.parametrize(
    ("line", "d_rate", "g_rate", "d_penalty", "keep_prob", "noise"),
    [
        ("--model conditional", 0.8, 0.6, 0.1, 1.0, 0.0),
        ("--model conditional --prior gaussian --n_z 2", 0.8, 0.6, 0.1, 1.0, 0.0),
        ("--model conditional --prior truncated_gaussian --n_z 5", 0.8, 0.6, 0.1, 1.0, 0.0),
        ("--model conditional --prior gaussian_mixture --n_z 2", 0.2, 1.0, 0.0, 0.9, 0.3),
        ("--model conditional --prior swiss_roll --n_z 2", 0.2, 1.0, 0.0, 0.9, 0.3),
        ("--model conditional --noise_std 0.2", 0.8, 0.6, 0.1, 1.0, 0.2),
        ("--model conditional --noised", 0.8, 0.6, 0.1, 1.0, 0.3),
        ("--model conditional --noised False --d_rate 1 --g_rate 0.5", 1.0, 0.5, 0.1, 1.0, 0.0),
        ("--model conditional --d_penalty 0 --keep_prob 0.9", 0.8, 0.6, 0.0, 0.9, 0.0),
        ("--model conditional --recipe paper", 10.0, 10.0, 0.0, 1.0, 0.3),
        ("--model unsupervised", 0.2, 0.2, 0.0, 0.9, 0.3),
        ("--model supervised --noised False", 0.2, 0.2, 0.0, 0.9, 0.0),
    ],
)
def test_d_keeps_up_with_a_conditional_model_by_default(line, d_rate, g_rate, d_penalty, keep_prob, noise):
    config = read(line)
    assert (config.d_rate, config.g_rate) == (d_rate, g_rate)
    assert (config.d_penalty, config.keep_prob, config.input_noise) == (d_penalty, keep_prob, noise)


@pytest.mark.parametrize(
    ("line", "where", "distortion"),
    [
        ("--prior gaussian_mixture --n_z 20", "output", 0.2),
        ("--prior swiss_roll --n_z 2", "output", 0.2),
        ("--prior gaussian --n_z 2", "output", 0.2),
        ("--prior gaussian --n_z 20", "input", 0.0),
        ("--prior truncated_gaussian --n_z 2", "input", 0.0),
        ("--model conditional --prior gaussian_mixture --n_z 2", "input", 0.0),
        ("--prior gaussian_mixture --n_z 2 --num_samples 100", "output", 0.2),
        ("--prior gaussian_mixture --n_z 2 --recipe paper", "input", 0.0),
        ("--prior gaussian_mixture --n_z 2 --d_label input", "input", 0.2),
        ("--prior gaussian_mixture --n_z 2 --d_distortion 0", "output", 0.0),
    ],
)
def test_labels_with_parts_of_the_prior_pick_outputs_of_d_that_sees_copies_by_default(
    line, where, distortion
):
    config = read(line)
    assert (config.d_label, config.d_distortion) == (where, distortion)


@pytest.mark.parametrize(
    ("line", "consistency", "distortion", "radius"),
    [
        ("--prior swiss_roll --n_z 2", True, 0.2, 0.5),
        ("--prior swiss_roll --n_z 2 --num_samples 100", True, 0.2, 0.5),
        ("--prior swiss_roll --n_z 2 --vat_radius 0", True, 0.2, 0.0),
        ("--prior swiss_roll --n_z 2 --noconsistency", False, 0.0, 0.0),
        ("--prior swiss_roll --n_z 2 --recipe paper", False, 0.0, 0.0),
        ("--prior gaussian_mixture --n_z 2", False, 0.0, 0.0),
        ("--prior gaussian_mixture --n_z 2 --consistency", True, 0.2, 0.5),
        ("--prior gaussian_mixture --n_z 2 --consistency --distortion 0.1", True, 0.1, 0.5),
        ("--model unsupervised --prior swiss_roll --n_z 2", False, 0.0, 0.0),
        ("--model semi_supervised --prior swiss_roll --n_z 2 --consistency", True, 0.0, 0.0),
    ],
)
def test_copies_stay_near_their_images_on_the_roll_by_default(line, consistency, distortion, radius):
    config = read(line)
    assert (config.consistency, config.distortion, config.vat_radius) == (consistency, distortion, radius)


@pytest.mark.parametrize(
    ("line", "noise"),
    [
        ("--prior swiss_roll --n_z 2", 0.1),
        ("--prior swiss_roll --n_z 4 --num_samples 100", 0.1),
        ("--prior swiss_roll --n_z 2 --noise_std 0.2", 0.2),
        ("--prior swiss_roll --n_z 2 --recipe paper", 0.3),
        (f"--flagfile={ROOT / 'configs' / 'seed_supervised_swiss_roll.flags'}", 0.3),
        ("--model conditional --prior swiss_roll --n_z 2", 0.3),
        ("--prior gaussian_mixture --n_z 2", 0.3),
        ("--prior swiss_roll --n_z 2 --noised False", 0.3),  # It has none, so the flag stays as it is.
    ],
)
def test_the_thin_swiss_roll_has_less_noise_by_default(line, noise):
    assert read(line).noise_std == noise


@pytest.mark.parametrize(
    ("line", "epochs"),
    [
        ("", 50),
        ("--prior gaussian_mixture --n_z 2", 90),
        ("--prior swiss_roll --n_z 4 --n_epoch 5000", 4990),
        ("--prior swiss_roll --n_z 2 --n_epoch 30", 23),
        ("--prior swiss_roll --n_z 2 --n_epoch 30 --lr_mid_epoch 14", 20),
        ("--prior gaussian --n_z 2 --n_epoch 30 --lr_mid_epoch 14", 20),
        ("--prior gaussian_mixture --n_z 2 --n_epoch 30 --lr_mid_epoch 28", 28),
        ("--prior gaussian_mixture --n_z 2 --n_epoch 30", 50),
        ("--lr_mid_epoch 14", 14),
        ("--prior truncated_gaussian --n_z 2 --lr_mid_epoch 14", 14),
        ("--prior gaussian_mixture --n_z 2 --clean_epoch 9", 9),
        ("--prior gaussian_mixture --n_z 2 --clean_epoch 0", 0),
        ("--prior gaussian_mixture --n_z 2 --lr_schedule plateau", 0),
        ("--prior gaussian_mixture --n_z 2 --recipe paper", 0),
        ("--model semi_supervised --prior gaussian_mixture --n_z 2", 0),
    ],
)
def test_where_noise_ends_by_default(line, epochs):
    assert read(line).clean_epoch == epochs


@pytest.mark.parametrize(
    ("line", "n_images", "batch_size", "epochs"),
    [
        ("--prior swiss_roll --n_z 2", 55_000, 128, 15),
        ("--prior swiss_roll --n_z 2", 1_319, 32, 50),  # the digits
        ("--prior swiss_roll --n_z 2 --batch_size 64", 55_000, 64, 8),
        ("--prior swiss_roll --n_z 2 --batch_size 128", 100, 128, 50),  # refused later: not one step an epoch
        ("--prior swiss_roll --n_z 2 --n_epoch 12", 55_000, 128, 15),  # at the first rate to its end
        ("--prior swiss_roll --n_z 2 --lr_end_epoch 12", 55_000, 128, 12),
        ("--prior swiss_roll --n_z 2 --lr_mid_epoch 40", 55_000, 128, 40),
        ("--prior swiss_roll --n_z 2 --recipe paper", 55_000, 100, 50),
        (f"--flagfile={ROOT / 'configs' / 'seed_supervised_swiss_roll.flags'}", 55_000, 128, 50),
        ("--model conditional --prior swiss_roll --n_z 2", 55_000, 128, 50),
        ("--prior gaussian_mixture --n_z 2", 55_000, 128, 50),
        ("--prior gaussian_mixture --n_z 2 --n_epoch 5", 55_000, 128, 50),
        ("--prior gaussian_mixture --n_z 2 --lr_mid_epoch 0", 55_000, 128, 15),
    ],
)
def test_what_follows_from_the_number_of_images(line, n_images, batch_size, epochs):
    config = with_data(read(line), n_images)
    assert (config.batch_size, config.lr_mid_epoch) == (batch_size, epochs)


def test_a_recipe_sets_defaults_and_flags_override_it():
    paper = read("--model semi_supervised --recipe paper")
    rates = {"ae": 0.01, "d": 0.1, "g": 0.1, "ce": 0.1, "cycle": 0.1}
    for epoch, divisor in ((0, 1), (49, 1), (50, 10), (999, 10), (1000, 100)):
        assert paper.learning_rates(epoch) == pytest.approx({k: r / divisor for k, r in rates.items()})
    assert (paper.optimizer, paper.momentum, paper.gan_momentum) == ("sgd", 0.9, 0.1)
    assert (paper.reconstruction, paper.keep_prob, paper.batch_size) == ("half_sum", 1.0, 100)
    other = read("--model semi_supervised --recipe paper --momentum 0.5 --batch_size 128")
    assert other == dataclasses.replace(paper, momentum=0.5, batch_size=128)


def test_the_short_recipe_is_the_papers_with_shifts_and_another_schedule():
    paper, short = (read(f"--model semi_supervised --recipe {name}") for name in ("paper", "short"))
    changes = {"recipe": "short", "shift": 2, "n_epoch": 50, "lr_mid_epoch": 25, "lr_end_epoch": 46}
    assert short == dataclasses.replace(paper, **changes)
    rates = [short.learning_rates(epoch)["ae"] for epoch in (0, 24, 25, 45, 46, 49)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])
    assert read("--model semi_supervised --recipe short --shift 0").shift == 0
