"""Unpack CIFAR-10, CIFAR-100, SVHN or Tiny-ImageNet into folders of classes, as the configs of classifiers want them.

    python tools/prepare_small_data.py cifar10 cifar-10-python.tar.gz data/cifar10
    python tools/prepare_small_data.py svhn FOLDER_OF_THE_MAT_FILES data/svhn

What is there already is left alone, so a run that was stopped goes on. It needs NumPy and Pillow, for SVHN also SciPy,
and nothing of this project.
"""

import argparse
import io
import os
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

MEMBERS = {
    "cifar10": ("batches.meta", *(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
    "cifar100": ("meta", "train", "test"),
    "svhn": ("train_32x32.mat", "test_32x32.mat"),
    "tiny-imagenet": ("wnids.txt", "val/val_annotations.txt"),
}


class Sample(NamedTuple):
    """Where an image goes, below the output, and how its file is made."""

    path: Path
    content: Callable[[], bytes]


class Source:
    """A folder, a tar or a ZIP archive, whose files are found by the ends of their paths."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            self.names = [str(file.relative_to(path).as_posix()) for file in sorted(path.rglob("*")) if file.is_file()]
            self.read: Callable[[str], bytes] = lambda name: (path / name).read_bytes()
        elif not path.is_file():
            raise FileNotFoundError(f"expected an archive or a folder, got {str(path)!r}: there is no such file")
        elif zipfile.is_zipfile(path):
            archive = zipfile.ZipFile(path)
            self.names, self.read = archive.namelist(), archive.read
        elif tarfile.is_tarfile(path):
            self.names, self.read = _tar(path)
        else:
            raise ValueError(
                f"expected a tar or ZIP archive, or a folder, got {str(path)!r}, which is not one or was cut off: "
                "fetch it again"
            )

    def find(self, member: str) -> str:
        """The name of the one file with this path, or a path that ends so."""
        found = [name for name in self.names if PurePosixPath(name).parts[-member.count("/") - 1 :] == _parts(member)]
        if len(found) != 1:
            what = "none" if not found else f"{len(found)}: {', '.join(found)}"
            raise ValueError(f"expected one file {member} in {str(self.path)!r}, got {what}: is it the right archive?")
        return found[0]


def _parts(member: str) -> tuple[str, ...]:
    return PurePosixPath(member).parts


def _tar(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    try:
        archive = tarfile.open(path)  # noqa: SIM115  it is read until the end
        members = {member.name: member for member in archive.getmembers() if member.isfile()}
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"expected a whole archive, got {str(path)!r} ({error}): fetch it again") from error
    return list(members), lambda name: archive.extractfile(members[name]).read()  # type: ignore[union-attr]


class ArraysOnly(pickle.Unpickler):
    """Loads what CIFAR's pickles hold, and runs no code that a file brings with it."""

    def find_class(self, module: str, name: str) -> Any:
        """The few names of NumPy that pickled arrays use."""
        if module.partition(".")[0] == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module.endswith("multiarray") and name == "_reconstruct":
            return lambda *_: np.ndarray.__new__(np.ndarray, (0,))
        if (module, name) == ("_codecs", "encode"):
            return lambda text, _: text.encode("latin1")
        raise pickle.UnpicklingError(f"{module}.{name} has no place in it")


def load_pickle(source: Source, member: str) -> dict[str, Any]:
    name = source.find(member)
    try:
        content = ArraysOnly(io.BytesIO(source.read(name)), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"expected CIFAR's batch {member} in {str(source.path)!r}, got another ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected CIFAR's batch {member} in {str(source.path)!r}, got {type(content).__name__}")
    return content


def cifar10(source: Source) -> Iterator[Sample]:
    names = load_pickle(source, "batches.meta").get("label_names") or []
    for member in MEMBERS["cifar10"][1:]:
        batch = load_pickle(source, member)
        split = "test" if member == "test_batch" else "train"
        yield from _cifar(split, batch, batch.get("labels"), names, member)


def cifar100(source: Source) -> Iterator[Sample]:
    names = load_pickle(source, "meta").get("fine_label_names") or []
    for split in ("train", "test"):
        batch = load_pickle(source, split)
        yield from _cifar(split, batch, batch.get("fine_labels"), names, split)


def _cifar(
    split: str, batch: dict[str, Any], labels: Sequence[int] | None, names: Sequence[str], member: str
) -> Iterator[Sample]:
    pixels = batch.get("data")
    if labels is None or not isinstance(pixels, np.ndarray) or pixels.shape != (len(labels), 3072):
        raise ValueError(
            f"expected N x 3072 pixels and N labels in {member}, got pixels {getattr(pixels, 'shape', None)} and "
            f"{None if labels is None else len(labels)} labels: is it the archive of the other CIFAR?"
        )
    if not {*labels} <= {*range(len(names))}:
        raise ValueError(f"expected labels of 0 to {len(names) - 1} in {member}, got {max(labels)}: fetch it again")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield Sample(Path(split, names[label], f"{member}_{index:05}.png"), _png(image))


def svhn(source: Source) -> Iterator[Sample]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("SVHN's .mat files need `scipy`: pip install scipy") from error
    for split in ("train", "test"):
        member = f"{split}_32x32.mat"
        name = source.find(member)
        try:
            content = loadmat(io.BytesIO(source.read(name)))
        except (TypeError, ValueError, NotImplementedError, OSError, IndexError) as error:
            raise ValueError(f"expected SVHN's {member}, got a file that cannot be read ({error})") from error
        images, labels = content.get("X"), content.get("y")
        if images is None or labels is None or images.shape != (32, 32, 3, labels.size):
            raise ValueError(f"expected X of 32 x 32 x 3 x N and N labels y in {member}, got {sorted(content)}")
        for index, label in enumerate(labels.ravel()):
            # 10 stands for the digit 0.
            yield Sample(Path(split, str(int(label) % 10), f"{index:06}.png"), _png(images[..., index]))


def tiny_imagenet(source: Source) -> Iterator[Sample]:
    names = source.read(source.find("wnids.txt")).decode().split()
    annotations = source.read(source.find("val/val_annotations.txt")).decode().splitlines()
    classes = {columns[0]: columns[1] for line in annotations if (columns := line.split("\t"))[1:]}
    wrong = sorted({*classes.values()} - {*names})
    if wrong:
        raise ValueError(f"expected classes of wnids.txt in val_annotations.txt, got {', '.join(wrong[:5])}")
    for name in source.names:
        folders = PurePosixPath(name).parts
        if not name.lower().endswith(".jpeg") or folders[-2] != "images":
            continue
        if folders[-3] == "val" and folders[-1] in classes:
            yield Sample(Path("test", classes[folders[-1]], folders[-1]), lambda name=name: source.read(name))  # type: ignore[misc]
        elif folders[-3] in names:
            yield Sample(Path("train", folders[-3], folders[-1]), lambda name=name: source.read(name))  # type: ignore[misc]


def _png(image: np.ndarray) -> Callable[[], bytes]:
    def content() -> bytes:
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(stream, format="png")
        return stream.getvalue()

    return content


DATASETS: dict[str, Callable[[Source], Iterator[Sample]]] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "tiny-imagenet": tiny_imagenet,
}


def write(samples: Iterable[Sample], out: Path) -> tuple[int, int]:
    """Write what is not there yet, each file as a whole or not at all; how many are new, and how many there are."""
    new = total = 0
    for path, content in samples:
        total += 1
        file = out / path
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.{os.getpid()}")
        unfinished.write_bytes(content())
        unfinished.replace(file)
        new += 1
    return new, total


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tools/prepare_small_data.py",
        description="Unpack a small data set into OUT/{train,test}/CLASS/; the labelled validation set of "
        "Tiny-ImageNet becomes its test set.",
    )
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("source", type=Path, help="the original archive, or the folder that holds its files")
    parser.add_argument("out", type=Path, help="folder to write to")
    args = parser.parse_args(argv)
    try:
        source = Source(args.source)
        for member in MEMBERS[args.dataset]:
            source.find(member)
        new, total = write(DATASETS[args.dataset](source), args.out)
        if not total:
            raise ValueError(f"expected images in {str(args.source)!r}, got none: is it the right archive?")
    except (OSError, ValueError, ImportError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        print(f"tools/prepare_small_data.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{total} images in {args.out}, {new} of them new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
