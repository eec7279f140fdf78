"""Measuring for the scripts beside this file: interleaved timings, peak memory, and what they were taken on."""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtn_det.layers.kernels import cpu


@dataclass(frozen=True)
class Timing:
    """Seconds of the repeated runs of one candidate."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)


def argument_parser(description: str, repeats: int) -> argparse.ArgumentParser:
    """A parser with the options that all timings have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=repeats)
    return parser


def training_step(network: nn.Module, images: Tensor, device: str) -> Callable[[], object]:
    """One step of AdamW of a classifier of 1000 classes, under bfloat16 autocast on a GPU."""
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=device == "cuda")
    labels = torch.randint(0, 1000, (len(images),), device=device)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    return run


def setup_line(device: str = "cpu") -> str:
    """Hardware, versions and commit of this run."""
    root = Path(__file__).parent
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    hardware = (
        torch.cuda.get_device_name() if device == "cuda" else f"{_processor()}, {torch.get_num_threads()} threads"
    )
    kernels = cpu.status().detail
    return (
        f"{hardware}; Python {platform.python_version()}, torch {torch.__version__}, kernels {kernels}; "
        f"commit {commit or 'unknown'}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def interleaved(candidates: dict[str, Callable[[], object]], repeats: int, device: str = "cpu") -> dict[str, Timing]:
    """Time the candidates in turn, A B A B ..., after one warm-up of each, so that drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(repeats + 1):
        for name, run in candidates.items():
            _synchronize(device)
            start = time.perf_counter()
            run()
            _synchronize(device)
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def ratio(timings: dict[str, Timing], name: str, reference: str) -> tuple[float, float, float]:
    """Median, minimum and maximum of the ratios pair by pair."""
    ratios = [a / b for a, b in zip(timings[name].seconds, timings[reference].seconds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def speeds(timings: dict[str, Timing], reference: str, batch: int) -> list[str]:
    """A line for each candidate: images a second, and its time in that of the reference, which comes first."""
    lines = [f"{reference} {batch / timings[reference].median:.1f} images/s"]
    for name in [name for name in timings if name != reference]:
        median, low, high = ratio(timings, name, reference)
        speed = batch / timings[name].median
        lines.append(f"{name}: {speed:.1f} images/s, time {median:.3f} ({low:.3f} to {high:.3f}) of {reference}'s")
    return lines


def peak_memory(build: Callable[..., Callable[[], object]], *arguments: object, device: str = "cpu") -> int:
    """Peak bytes above what is held before the run, measured in a fresh process.

    Args:
        build: A function of a module, called with the arguments; it returns what is to be measured.
        arguments: For ``build``.
        device: ``'cpu'`` (Linux only: the kernel's resident high-water mark) or ``'cuda'``.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_memory, build, arguments, device, torch.get_num_threads()).result()


def _peak_memory(build: Callable[..., Callable[[], object]], arguments: tuple, device: str, threads: int) -> int:
    torch.set_num_threads(threads)
    run = build(*arguments)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    if sys.platform != "linux":
        raise OSError(f"expected Linux to read the peak memory of a process, got {sys.platform}")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status_bytes("VmRSS")
    run()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"expected {field} in /proc/self/status, got none")


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
