"""Threads whose work is not to be felt by others."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from contextlib import suppress
from typing import ClassVar, final

# About a tenth of a normal thread's share of a busy processor. With less, a thread that was
# interrupted while it held Python's lock would keep everybody waiting for much longer.
_NICE = 10
_NICEST = 19
# Longer than those of others, which are some milliseconds, but not by much: up to Linux 6.16 a
# thread that was interrupted in its slice may wait for the rest of this one.
_SLICE_NS = 10_000_000
# Numbers of the system call sched_setattr, for which the C library has no function.
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}


@final
class _Attributes(ctypes.Structure):
    """`struct sched_attr` of Linux, as sched_setattr(2) has it."""

    _fields_: ClassVar = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    ]


def lower_priority() -> None:
    """Lets this thread give way to others, where the system has priorities of threads."""
    if sys.platform == "linux":
        with suppress(OSError):
            # On Linux this is the priority of one thread.
            thread = threading.get_native_id()
            nice = min(os.getpriority(os.PRIO_PROCESS, thread) + _NICE, _NICEST)
            os.setpriority(os.PRIO_PROCESS, thread, nice)
            _take_long_slices(nice)


def _take_long_slices(nice: int) -> None:
    """Lets threads that wake up take this one's processor at once, from Linux 6.12 on.

    Whoever has shorter slices of time goes first there; among equals, a thread that computes
    finishes its slice of some milliseconds first, whatever its priority. Earlier systems ignore it.
    """
    call = _SET_ATTRIBUTES.get(platform.machine())
    if call is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    attributes = _Attributes(ctypes.sizeof(_Attributes), os.SCHED_OTHER, nice=nice)
    attributes.runtime = _SLICE_NS
    # Where it fails, as in a container that does not allow it, priorities stay as they are.
    ctypes.CDLL(None).syscall(call, 0, ctypes.byref(attributes), 0)
