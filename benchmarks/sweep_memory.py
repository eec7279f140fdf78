"""Does the memory of `dtn-det mce` stay the same however many images there are?

python benchmarks/sweep_memory.py [--images 1000 10000] [--severities 1 2 3 4 5] [--workers 1]

Runs the command on generated images of 32 x 32 with a small model under 15 corruptions, once for each number of
images, from the list of files to the table, and prints the peak resident memory of its main process and of its largest
worker process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _measure import setup_line
from PIL import Image

MODEL = """
import torch

def colours():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 10))
"""
CLASSES = 10
MEGABYTE = 1e6


def write_data(folder: Path, images: int) -> None:
    """Noise as PNG files in folders of ten classes."""
    rng = np.random.default_rng(0)
    for number in range(images):
        path = folder / f"class_{number % CLASSES}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path, compress_level=1)


def peaks(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; peak bytes of its process, and of the largest that it started."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = folder / "output.txt"
    own, others = 0, 0
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
        while process.poll() is None:
            for number, parent, peak in _processes():
                if number == process.pid:
                    own = max(own, peak)
                elif parent == process.pid:
                    others = max(others, peak)
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(output.read_text())
    return own, others


def _processes() -> list[tuple[int, int, int]]:
    """Number, parent and peak resident bytes of every process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:  # it has ended
            continue
        if "VmHWM" in fields:
            found.append((int(fields["Pid"]), int(fields["PPid"]), 1024 * int(fields["VmHWM"].split()[0])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--severities", nargs="+", default=["1", "2", "3", "4", "5"])
    parser.add_argument("--workers", default="1")
    args = parser.parse_args()
    print(setup_line(), flush=True)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "small_model.py").write_text(MODEL)
        for images in args.images:
            write_data(folder / f"data{images}", images)
            command = [sys.executable, "-m", "dtn_det.cli.main", "mce", "python:small_model:colours"]
            command += ["--data", f"data{images}", "--store", f"store{images}", "--profile", "cifar-c"]
            command += ["--baseline", "colours", "--device", "cpu", "--workers", args.workers]
            found.append(peaks([*command, "--severities", *args.severities], folder))
            own, others = (bytes_ / MEGABYTE for bytes_ in found[-1])
            print(f"{images:7,} images: main process {own:.0f} MB, largest worker {others:.0f} MB", flush=True)
    own, others = (100 * (last / first - 1) if first else 0 for first, last in zip(found[0], found[-1], strict=True))
    print(f"from {args.images[0]:,} to {args.images[-1]:,} images: main {own:+.1f} %, worker {others:+.1f} %")


if __name__ == "__main__":
    main()
