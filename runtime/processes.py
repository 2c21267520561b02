"""What a forked child must not do: use, or take apart, the threads and sessions that belong to its parent."""

from __future__ import annotations

import os
import weakref
from typing import Any

from .errors import ClosedError

# Whatever holds threads, devices or sessions of this process.
_held: weakref.WeakSet[Any] = weakref.WeakSet()


def hold_over_fork(resource: Any) -> None:
    """Sees to it that a forked child never destroys a resource: waiting for its threads there would never end."""
    _held.add(resource)


def check_process(opened_in: int) -> None:
    """Raises an error where another process opened what is to be used.

    Args:
        opened_in: process id.

    Raises:
        ClosedError: this is another process.
    """
    if os.getpid() != opened_in:
        raise ClosedError(
            f"This runtime was loaded in process {opened_in} and does not work in its fork {os.getpid()}.",
            "Load a runtime after the fork (runtime.render does so by itself), or start processes with 'spawn'.",
        )


def _keep_for_ever() -> None:
    import ctypes

    for resource in list(_held):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(resource))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_for_ever)
