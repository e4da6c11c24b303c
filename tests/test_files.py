import os

import numpy as np
import pytest

from evaluation import plots
from utils.errors import LONGEST, UserError
from utils.files import atomic_folder, atomic_path, remove_temporaries, write_text
from utils.untrusted import count_records, read_arrays, read_limited


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail_half_way():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / text).write_text(text)

    def fail_half_way():
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["folder", "folder/new"]


def test_what_killed_processes_left_is_removed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / ".folder.1.new.tmp").mkdir()
    (tmp_path / ".folder.1.new.tmp" / ".file.1.tmp.txt").write_text("half")
    (tmp_path / "kept" / ".file.1.tmp.txt").write_text("half")
    (tmp_path / ".link.1.tmp").symlink_to("kept")
    remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_written_through(tmp_path):
    (tmp_path / "private").write_text("private")
    (tmp_path / f".file.{os.getpid()}.tmp.txt").symlink_to("private")
    write_text(tmp_path / "file.txt", "text")
    assert (tmp_path / "private").read_text() == "private"
    assert not (tmp_path / "file.txt").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "private"]


def test_read_limited_reads_files_up_to_its_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes"):
        read_limited(path, 4)


def test_no_reader_waits_for_a_pipe_or_a_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    # The device first: a reader that is open to both fails there, instead of waiting for ever.
    for path in ("/dev/zero", tmp_path / "pipe"):
        for read in (
            lambda path: read_limited(path, 100),
            lambda path: read_arrays(path, [], 100),
            count_records,
        ):
            with pytest.raises(OSError, match="no file"):
                read(path)


def test_an_error_is_one_line_of_bounded_length_whatever_it_quotes():
    assert str(UserError("plain é text")) == "plain é text"
    assert str(UserError("a\nb\x1b[31m\udcff")) == "a\\nb\\x1b[31m\\udcff"
    assert len(str(UserError("x" * 10**6))) == LONGEST + 4


def test_tile_puts_images_in_rows():
    images = np.arange(5)[:, None, None, None] * np.ones((5, 2, 3, 1))
    sheet = plots.tile(images, 3)
    assert sheet.shape == (4, 9, 1)
    np.testing.assert_array_equal(sheet[::2, ::3, 0], [[0, 1, 2], [3, 4, 0]])


def test_codes_outside_the_axes_are_counted():
    figure, axes = plots.plt.subplots()
    plots.draw_codes(axes, np.array([[0.0, 0.0], [5.0, 0.0]]), np.array([0, 1]), limit=2.0)
    assert "1 of 2 outside" in [text.get_text() for text in axes.texts]
    assert axes.get_xlim() == axes.get_ylim() == (-2.0, 2.0)
    plots.plt.close(figure)


def test_class_numbers_far_outside_the_axes_do_no_harm(tmp_path):
    """As in the first epochs: matplotlib would shrink the axes to make room for them, and warn."""
    codes = np.array([[0.0, 0.0], [500.0, 0.0]])
    plots.save_codes(tmp_path / "codes.png", codes, np.array([0, 1]), 2.0, "Codes")
    assert (tmp_path / "codes.png").stat().st_size > 0
