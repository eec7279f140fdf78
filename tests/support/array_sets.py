"""Small sets whose images are rows of a file: CIFAR-10-C as published, CIFAR's own batches, Parquet files."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from class_folders import picture
from numpy.typing import NDArray
from PIL import Image

LABELS = np.arange(10, dtype=np.uint8)


def clean_images(count: int = 10, side: int = 32) -> NDArray[np.uint8]:
    """Some images, ``(count, side, side, 3)``."""
    return np.stack([np.asarray(picture(seed, side)) for seed in range(count)])


def write_cifar_c(
    root: Path, names: Sequence[str] = ("fog", "contrast"), labels: NDArray[np.uint8] = LABELS, side: int = 32
) -> Path:
    """Arrays of corrupted images: each severity darkens the clean images by another share."""
    root.mkdir(parents=True)
    clean = clean_images(len(labels), side)
    for shift, name in enumerate(names):
        rows = [clean // (severity + 1) + shift for severity in range(1, 6)]
        np.save(root / f"{name}.npy", np.concatenate(rows).astype(np.uint8))
    np.save(root / "labels.npy", np.tile(labels, 5))
    return root


def write_batches(root: Path, labels: Sequence[int] = tuple(range(10))) -> Path:
    """CIFAR-10's own batches: a test batch and a batch of training images."""
    root.mkdir(parents=True)
    planes = clean_images(len(labels)).transpose(0, 3, 1, 2).reshape(len(labels), -1)
    for name, data in (("test_batch", planes), ("data_batch_1", planes[::-1])):
        batch = {b"data": np.ascontiguousarray(data), b"labels": list(labels), b"batch_label": name.encode()}
        (root / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": names, b"num_cases_per_batch": 10}, protocol=2))
    return root


def write_parquet(path: Path, column: str = "img", label: str = "label", labels: Sequence[int] = range(10)) -> Path:
    """A Parquet file as Hugging Face distributes CIFAR-10, in row groups of four images."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    values = []
    for row, pixels in enumerate(clean_images(len(labels))):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="png")
        values.append({"bytes": stream.getvalue(), "path": f"{row}.png"})
    parquet.write_table(pyarrow.table({column: values, label: list(labels)}), path, row_group_size=4)
    return path
