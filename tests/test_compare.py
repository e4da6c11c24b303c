"""Several runs in one table and one picture, read from files that stand for theirs."""

import json

import cv2
import numpy as np

from evaluation import compare


def write_run(directory, n_z, error, **figures):
    """A run directory with what is compared."""
    (directory / "plots").mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"flags": {"n_z": n_z, "seed": 0, "run_dir": "x"}}))
    metrics = {"test_reconstruction_mse": error, **figures, "data": {"name": "digits"}}
    (directory / "metrics.json").write_text(json.dumps(metrics))
    rows = "".join(f"{epoch},{error + 1 / epoch},1.386,0.7\n" for epoch in range(1, 6))
    (directory / "history.csv").write_text("epoch,val_reconstruction_mse,d_loss,g_loss\n" + rows)
    cv2.imwrite(str(directory / "plots" / "samples.png"), np.full((60, 50, 3), 128, np.uint8))


def test_a_table_and_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "a", 2, 0.25)
    write_run(tmp_path / "b", 8, 0.125, test_error_percent=3.0)
    assert compare.main(["compare", "a", "b"]) == 0
    table = (tmp_path / "runs" / "comparison" / "comparison.md").read_text()
    assert table.splitlines() == [
        "| | a | b |",
        "|---|---|---|",
        "| --n_z | 2 | 8 |",
        "| test_reconstruction_mse | 0.25 | 0.125 |",
        "| test_error_percent |  | 3 |",
    ]
    assert table in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "runs" / "comparison" / "comparison.png")).std() > 5


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def refusal(*words):
        assert compare.main(["compare", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "runs" in refusal()
    assert "no run absent, neither here nor in runs/" in refusal("absent")
    (tmp_path / "begun").mkdir()
    assert "metrics.json is missing" in refusal("begun")
    for name in ("config.json", "metrics.json", "history.csv"):
        for index, content in enumerate(("", "[]", "{")):
            write_run(tmp_path / f"{index}{name}", 2, 0.5)
            (tmp_path / f"{index}{name}" / name).write_text(content)
            assert "is damaged" in refusal(f"{index}{name}")
    assert not (tmp_path / "runs").exists()
