"""Files that are written whole or not at all, and what may be replaced."""

import errno
import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime
from runtime.commands import one_sentence_errors
from runtime.errors import ProjectError
from runtime.files import atomic_write, temporary_name
from runtime.outputs import check_targets, is_ours, remove_stale, save_png


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=255))
def test_a_temporary_name_is_no_longer_than_the_files(name):
    made = temporary_name(name)
    assert len(made) <= max(2, len(name.encode()))
    assert made.startswith(".")
    assert "/" not in made


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("a" * 251 + ".png")
    save_png(np.zeros((4, 4, 3), np.uint8), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_error_names_the_target_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "mesh.glb"
    path.write_bytes(b"old")

    def fill_the_disk():
        with atomic_write(path) as partial:
            partial.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        fill_the_disk()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["mesh.glb"]


def test_only_what_this_program_wrote_is_replaced(tmp_path):
    pixels, theirs, ours = np.zeros((4, 4, 3), np.uint8), tmp_path / "theirs.png", tmp_path / "ours.png"
    theirs.write_bytes(b"\x89PNG\r\n\x1a\n not ours")
    save_png(pixels, ours)
    assert is_ours(ours)
    assert not is_ours(theirs)
    check_targets([ours, tmp_path / "new.png"], overwrite=False)
    check_targets([theirs], overwrite=True)
    with pytest.raises(runtime.OptionError, match=r"theirs\.png exists, and was not written by this program"):
        check_targets([ours, theirs], overwrite=False)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(runtime.OptionError, match="is a folder"):
        check_targets([tmp_path / "folder.png"], overwrite=True)


def test_views_of_an_earlier_longer_orbit_go_and_nothing_else(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    for index in range(4):
        save_png(pixels, tmp_path / f"mug_orbit_{index:03d}.png")
    (tmp_path / "mug_orbit_009.png").write_bytes(b"theirs")
    kept = [tmp_path / f"mug_orbit_{index:03d}.png" for index in range(2)]
    remove_stale(tmp_path, re.compile(r"mug_orbit_\d{3,}\.png"), kept)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mug_orbit_000.png", "mug_orbit_001.png", "mug_orbit_009.png"]


def test_nothing_replaces_an_input_whatever_it_is_called(tmp_path):
    given, other = tmp_path / "given.png", tmp_path / "a_texture.png"
    save_png(np.zeros((4, 4, 3), np.uint8), given)
    other.hardlink_to(given)
    for overwrite in (False, True):
        with pytest.raises(runtime.OptionError, match=r"overwrite the input .*given\.png"):
            check_targets([tmp_path / "new.obj", other], overwrite, [given])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ProjectError("it is wrong"), "error: it is wrong"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "out/a.png"), "error: out/a.png: Too many open files."),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/a.png"), "error: out/a.png: No space left on device."),
        (MemoryError(), "error: Out of memory."),
        (RuntimeError("can't start new thread"), "error: The system starts no more threads"),
    ],
)
def test_what_a_machine_runs_out_of_is_one_sentence(error, said, capsys):
    with pytest.raises(SystemExit) as caught, one_sentence_errors():
        raise error
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith(said)


def test_a_mistake_of_the_program_is_not_hidden():
    with pytest.raises(RuntimeError, match="a bug"), one_sentence_errors():
        raise RuntimeError("a bug")
