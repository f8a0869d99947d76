"""What the figures were measured on: the machine, the packages, the commit, and how fast memory is read."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
READS = 15
TELLING = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "avx_vnni")
PACKAGES = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "gradio", "numpy")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str:
    """Return the commit that is checked out, with "-dirty" if the code differs from it."""
    changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py", "adapter", "corpus", "index")
    return _git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")


def describe(*, threads: int) -> dict[str, Any]:
    """Return the processor, memory, load and versions; `threads` is what every contender is given."""
    import psutil

    cpu = _cpu()
    flags = cpu.get("flags", "").split()
    return {
        "processor": cpu.get("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in TELLING if flag in flags],
        "cores": cores(),
        "threads": threads,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "made": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def read_bandwidth(size: int) -> float:
    """Return the GB/s at which torch reads `size` bytes with its threads: the best of a few sums over them."""
    import torch

    buffer = torch.ones(size // 4, dtype=torch.float32)
    best = float("inf")
    for _ in range(READS):
        started = time.perf_counter()
        buffer.sum()
        best = min(best, time.perf_counter() - started)
    return size / best / 1e9


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process and those that it started."""
    import psutil

    process = psutil.Process(pid)
    resident = sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])
    return round(int(resident) / 2**20, 1)


def _cpu() -> dict[str, str]:
    """Return what Linux says of the first processor."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text("utf-8").split("\n\n")[0].split("\n") if file.is_file() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
