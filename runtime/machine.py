"""How many cores this process may use: the least of what the machine has, the affinity mask and the cgroup's quota."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

# What a machine calls itself.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> tuple[int, str]:
    """Counts cores.

    Args:
        cgroups: where the kernel's control groups are mounted.
        own: says which of them this process is in.

    Returns:
        The number of cores, 1 or more, and in words what limits it.
    """
    limits = [(os.cpu_count() or 1, "the machine's cores")]
    if hasattr(os, "sched_getaffinity"):
        limits.append((len(os.sched_getaffinity(0)), "the affinity mask"))
    quotas = [quota for quota in _quotas(cgroups, own) if quota > 0]
    if quotas:
        limits.append((max(1, math.ceil(min(quotas))), f"the cgroup's quota of {min(quotas):g} CPUs"))
    return min(limits, key=lambda limit: limit[0])


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """CPUs that each control group around this process may use; a group counts for all groups inside it."""
    for line in _read(own).splitlines():
        _, controllers, path = [*line.split(":", 2), "", "", ""][:3]
        # Version 2 has one hierarchy without names, version 1 one for each set of controllers.
        if not controllers:
            roots = [cgroups, cgroups / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [cgroups / controllers, cgroups / "cpu"]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for root in roots:
            # In a container the path is the host's, and the group itself is mounted as the root.
            for depth in range(len(parts) + 1):
                yield from _quota(root.joinpath(*parts[:depth]))


def _quota(folder: Path) -> Iterator[float]:
    whole = _read(folder / "cpu.max").split()  # "150000 100000", or "max 100000"
    quota, period = (
        whole if len(whole) == 2 else (_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
    )
    try:
        yield int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
