"""Engine files: the key that each is tied to, damage, and a kill at any moment of writing."""

import dataclasses
import subprocess
import sys

import pytest

from runtime.backends.tensorrt.engine_file import EngineKey, EngineMiss, find_engine, read_engine, write_engine


def test_every_part_of_the_key_counts(tmp_path):
    key = EngineKey("a" * 64, "rtx", "1.7.1", "sm89", {"x": [[1, 3], [1, 3], [4, 3]]}, {"workspace": 1})
    path = tmp_path / "x.engine"
    write_engine(path, key, b"plan")
    assert read_engine(path, key) == b"plan"
    changes = {
        "graph": ("b" * 64, "the graph is another one"),
        "flavour": ("tensorrt", "it is for the flavour rtx, not tensorrt"),
        "version": ("1.8.0", "it was built by version 1.7.1, 1.8.0 is installed"),
        "device": ("sm120", "it is for sm89, not sm120"),
        "profile": ({"x": [[1, 3], [1, 3], [5, 3]]}, "its profile of x is 1x3 / 1x3 / 4x3, not 1x3 / 1x3 / 5x3"),
        "options": ({"workspace": 2}, "its options are {'workspace': 1}, not {'workspace': 2}"),
    }
    assert set(changes) == {field.name for field in dataclasses.fields(EngineKey)}
    for name, (value, reason) in changes.items():
        with pytest.raises(EngineMiss) as caught:
            read_engine(path, dataclasses.replace(key, **{name: value}))
        assert str(caught.value) == reason


def test_a_damaged_engine_is_refused_whatever_byte_is_hit(tmp_path):
    key = EngineKey("a" * 64, "rtx", "1", "sm89", {}, {})
    path = tmp_path / "x.engine"
    write_engine(path, key, bytes(range(200)))
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        for read in (
            lambda: read_engine(path, key),
            lambda: find_engine(path, "a" * 64, "rtx", "1", "NVIDIA L4, sm89"),
        ):
            with pytest.raises(EngineMiss):
                read()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(EngineMiss):
            read_engine(path, key)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_while_an_engine_is_written_leaves_the_one_before(tmp_path, moment):
    path = tmp_path / "x.engine"
    old, new = (EngineKey(graph * 64, "rtx", "1", "sm89", {}, {}) for graph in "ab")
    write_engine(path, old, b"old plan")
    code = f"""
import os, pathlib
from runtime.backends.tensorrt.engine_file import EngineKey, write_engine
def die(*_):
    os.kill(os.getpid(), 9)
os.fsync = die
if {moment!r} == "replace":
    os.fsync, pathlib.Path.replace = (lambda _: None), die
write_engine(pathlib.Path({str(path)!r}), EngineKey("b" * 64, "rtx", "1", "sm89", {{}}, {{}}), bytes(1 << 20))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2, "the killed build had begun to write"
    assert read_engine(path, old) == b"old plan"
    write_engine(path, new, b"new plan")
    assert read_engine(path, new) == b"new plan"
    assert list(tmp_path.iterdir()) == [path], "what the killed build left is cleared away"
