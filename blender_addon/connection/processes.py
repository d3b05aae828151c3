# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a process lives, without psutil, which Blender does not have."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The backend's clock and ours round differently.
_START_TOLERANCE_SECONDS = 2.0
# Windows: rights, an exit code, and the seconds from 1601 to 1970.
_QUERY_LIMITED_INFORMATION, _STILL_ACTIVE, _SECONDS_TO_EPOCH = 0x1000, 259, 11644473600


def is_running(pid: int, started: float | None = None) -> bool:
    """Whether this user's process lives. Never raises.

    Args:
        pid: its id.
        started: when it was started, as a ready file tells it (seconds since the machine's start on Linux, since 1970 elsewhere);
            tells it from a later one with its id where the system lets us see that. None for any.
    """
    if not 0 < pid < 2**32:
        return False
    try:
        if sys.platform == "win32":
            begun = _start_on_windows(pid)
        elif sys.platform == "linux" and Path("/proc/self/stat").exists():
            begun = _start_on_linux(pid)
        else:
            # No word about its start: the key that the server proves tells it from another.
            os.kill(pid, 0)
            return True
    except (OSError, ValueError, OverflowError):
        # Not there, or another user's.
        return False
    return begun is not None and (started is None or abs(begun - started) <= _START_TOLERANCE_SECONDS)


def _start_on_linux(pid: int) -> float | None:
    """Seconds since the machine's start; None for one that ended and waits for its parent to notice."""
    # The name before the bracket may hold anything.
    state, *numbers = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    if state in (b"Z", b"X"):
        return None
    return int(numbers[18]) / os.sysconf("SC_CLK_TCK")


def _start_on_windows(pid: int) -> float | None:
    """Seconds since 1970; None for one that ended and is still held open by somebody."""
    import ctypes

    # Type checkers know WinDLL on Windows only.
    if sys.platform != "win32":
        raise OSError("this is not Windows")
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid))
    if not handle:
        return None
    try:
        code = ctypes.c_uint32()
        if not kernel.GetExitCodeProcess(handle, ctypes.byref(code)) or code.value != _STILL_ACTIVE:
            return None
        times = [ctypes.c_uint64() for _ in range(4)]
        if not kernel.GetProcessTimes(handle, *(ctypes.byref(time) for time in times)):
            return None
        return times[0].value / 1e7 - _SECONDS_TO_EPOCH
    finally:
        kernel.CloseHandle(handle)
