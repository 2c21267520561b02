"""Cores that a process may use: control groups of both versions, as the kernel mounts them in and around containers."""

import os

import pytest

import runtime
from runtime import backends
from runtime.machine import usable_cores

MANY = 4


@pytest.fixture(autouse=True)
def many_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: MANY)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MANY)), raising=False)


def groups(tmp_path, own, files):
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return usable_cores(tmp_path / "cgroup", tmp_path / "own")


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}),
        ("0::/docker/abc\n", {"cpu.max": "50000 100000\n"}),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "80000 100000\n"}),
        ("0::/a/b\n", {"a/b/cpu.max": "90000 100000\n", "a/cpu.max": "800000 100000\n"}),
        (
            "4:cpu,cpuacct:/docker/abc\n0::/x\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        ),
        ("3:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}),
    ],
    ids=["v2", "v2 in a container", "v2, a parent's", "v2, its own", "v1 in a container", "v1"],
)
def test_a_quota_of_one_cpu_is_one_core(tmp_path, own, files):
    cores, limit = groups(tmp_path, own, files)
    assert cores == 1
    assert "quota" in limit


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("", {}),
        ("0::/\n", {"cpu.max": "max 100000\n"}),
        ("0::/\n", {"cpu.max": "nonsense"}),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}),
        ("0::/../..\n", {"cpu.max": "100000 0"}),
    ],
)
def test_without_a_quota_the_affinity_counts(tmp_path, own, files):
    cores, limit = groups(tmp_path, own, files)
    assert cores == MANY
    assert "quota" not in limit


def test_a_quota_between_two_cores_is_rounded_up(tmp_path):
    cores, _ = groups(tmp_path, "0::/\n", {"cpu.max": "150000 100000\n"})
    assert cores == 2


def test_threads_are_bounded_by_the_quota(tiny_bundle, monkeypatch):
    monkeypatch.setattr(backends, "usable_cores", lambda: (1, "the cgroup's quota of 1 CPUs"))
    with runtime.load(tiny_bundle, backend="cpu") as rt:
        assert rt.backend.threads == 1
    with pytest.warns(runtime.ThreadsWarning, match=r"threads=64 are more than the cgroup's quota") as caught:
        runtime.load(tiny_bundle, backend="cpu", threads=64).close()
    assert caught[0].filename == __file__
