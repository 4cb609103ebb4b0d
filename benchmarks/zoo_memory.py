"""Resident memory of this process, in bytes, and its peak since a moment. Linux only: elsewhere
the peak is that of the whole process so far."""

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def resident() -> int:
    """What is resident now."""
    return _field("VmRSS") if _STATUS.exists() else peak()


def peak() -> int:
    """The largest `resident()` since `forget_peak()`."""
    if _STATUS.exists():
        return _field("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Start anew from what is resident now."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def limit(size: int) -> None:
    """Make allocations beyond `size` fail in this process, instead of the machine running out."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _field(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None
    return int(found.group(1)) * 1024
