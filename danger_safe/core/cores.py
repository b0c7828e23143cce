"""The number of processor cores that this process may use, which is often fewer than the computer has."""

import math
import os
from functools import cache
from pathlib import Path

# Environment variables that limit the threads of the libraries under NumPy and PyTorch.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CGROUPS = Path("/sys/fs/cgroup")


@cache
def available_cores() -> int:
    """Return the number of cores that affinity and container limits allow this process; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float:
    """Return the CPU quota of this process's container in cores (Linux cgroups v1 and v2); infinity without a quota.

    Args:
        root: where the cgroup file systems are mounted.
        membership: the file that lists the cgroups of this process.
    """
    try:
        groups = [line.split(":", 2) for line in membership.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return math.inf
    quotas = [math.inf]
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        # Inside a container the path may be the host's, and the container's own limits are then at the mount root.
        group = Path(path.strip("/"))
        quotas += [_read_quota(base / folder) for folder in (group, *group.parents, Path())]
    return min(quotas)


def _read_quota(folder: Path) -> float:
    """Return the quota in the files of one cgroup (cpu.max in version 2, cpu.cfs_* in version 1)."""
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
    """Limit the threads of NumPy's libraries to ``available_cores``. Call this before NumPy is imported.

    By default, they start one thread for each core of the computer.
    """
    if available_cores() < (os.cpu_count() or 1):
        for name in _THREAD_VARIABLES:
            os.environ.setdefault(name, str(available_cores()))
