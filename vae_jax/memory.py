"""How much memory there is: of the host, and of its devices."""

import math
import os
from pathlib import Path

import jax

GIB = 2**30


# Sizes --------------------------------------------------------------------------------------------


def memory_limit() -> int:
    """Bytes that one data set may take: half of what is free, since splitting it copies it."""
    free = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
        free.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))  # or "max": ValueError
    except (OSError, ValueError):
        pass
    return min(free or [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]) // 2


def default_limit() -> float:
    """Half of the device's memory, in bytes; on a CPU there is nothing to gain by streaming."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", math.inf) / 2


def memory() -> float:
    """Bytes that are free on each device; on a CPU, in the machine."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return free / jax.local_device_count()
