"""What all benchmarks share: naming the machine, timing, and summarising repeated timings."""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import torch

import skdiscovery


def machine() -> str:
    """Return the processor or GPU, the number of threads, and the versions, on one line."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"{_processor()}, {torch.get_num_threads()} threads"
    return (
        f"{device}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {numpy.__version__}, skdiscovery {skdiscovery.__version__}"
    )


def spread(values: list[float], form: str = "{:.2f}") -> str:
    """Return the median, and the smallest and largest value in brackets."""
    shown = [form.format(v) for v in (statistics.median(values), min(values), max(values))]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes, on a GPU too."""
    start = now()
    work()
    return now() - start


def now() -> float:
    """Return the time in seconds when a GPU, if one is used, has done all it was asked to."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
