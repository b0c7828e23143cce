"""How many processor cores this process may use: often fewer than the computer has."""

import math
import os
from functools import cache
from pathlib import Path

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # what NumPy's and PyTorch's libraries ask
_CGROUPS = Path("/sys/fs/cgroup")


@cache
def available_cores() -> int:
    """The cores that the system, a scheduler or a container leaves to this process; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float:
    """How many cores a container may keep busy (Linux control groups, both versions); infinite where nothing says
    so."""
    try:
        groups = [line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return math.inf
    found = [math.inf]
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        # within a container the path may be the host's: the root is then the container's own
        inner = Path(path.strip("/"))
        found += [_quota_of(base / folder) for folder in (inner, *inner.parents, Path())]
    return min(found)


def _quota_of(folder: Path) -> float:
    try:
        if (folder / "cpu.max").is_file():
            allowed, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            allowed = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(allowed) / int(period) if allowed not in ("max", "-1") else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def limit_threads() -> None:
    """Before NumPy is loaded: its libraries start a thread for each core that the computer has, if nobody says less."""
    if available_cores() < (os.cpu_count() or 1):
        for name in _THREADS:
            os.environ.setdefault(name, str(available_cores()))
