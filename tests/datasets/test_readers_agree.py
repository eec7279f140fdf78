"""Every command that reads class folders gives one answer on one folder: `mce`, `corrupt`, `tools/`, the recogniser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from odd_folders import WNIDS, arrays, coco, link_classes, tiny_imagenet, val_files, write_classes, write_image

from dtn_det.corrupted_folders.plan import plan_tree
from dtn_det.datasets.configs.folders import check_class_folders
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.robustness.classification.data import prepare
from dtn_det.robustness.options import ClassificationOptions

pytest.importorskip("timm", reason="ImageNet's classes come from timm")


def strange(root: Path, name: str) -> Path:
    write_image(root / name / "x.png")
    return root


def beside(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return root


FOLDERS: Mapping[str, Callable[[Path], Path]] = {
    "words": lambda root: write_classes(root, ("cat", "dog", "ant")),
    "words in two cases": lambda root: write_classes(root, ("Zebra", "ant", "Bee")),
    "letters of two forms": lambda root: write_classes(root, ("caf\u00e9", "cafe\u0301x", "zoo")),
    "wnids": lambda root: write_classes(root, WNIDS, val_files()),
    "wnids in val": lambda root: write_classes(root / "val", WNIDS, val_files()).parent,
    "numbers to 11": lambda root: write_classes(root, map(str, range(12))),
    "padded numbers": lambda root: write_classes(root, (f"{number:02}" for number in range(12))),
    "a thousand numbers": lambda root: link_classes(root, map(str, range(1000)), "x.jpeg"),
    "numbers with a gap": lambda root: write_classes(root, ("0", "2")),
    "one number twice": lambda root: write_classes(root, ("0", "1", "01")),
    "one stem twice": lambda root: write_classes(root, ("cat", "dog"), ("1.jpg", "1.png")),
    "all endings": lambda root: write_classes(root, ("cat", "dog"), ("a.jfif", "b.ppm", "c.gif", "d.jp2", "e.jpe")),
    "an empty class": lambda root: beside(write_classes(root, ("cat", "dog")), "bee/notes.txt"),
    "folders in folders": lambda root: write_classes(root, ("cat", "dog"), ("a.png", "deep/er/b.png")),
    "litter": lambda root: beside(write_classes(root, ("cat", "dog")), "cat/Thumbs.db", "cat/._a.png", ".DS_Store"),
    "a hidden folder": lambda root: strange(write_classes(root, ("cat", "dog")), ".cache"),
    "an archiver's folder": lambda root: strange(write_classes(root, ("cat", "dog")), "__MACOSX"),
    "a stranger beside wnids": lambda root: strange(write_classes(root, WNIDS), "other"),
    "loose images": lambda root: write_image(write_classes(root, ("cat", "dog")) / "x.png").parent,
    "loose images beside wnids": lambda root: write_image(write_classes(root, WNIDS) / "x.png").parent,
    "flat": lambda root: write_image(root / "a.png").parent,
    "unsorted": lambda root: write_image(root / val_files()[0]).parent,
    "tiny": lambda root: write_classes(root, WNIDS, size=(64, 64)),
    "tiny as downloaded": tiny_imagenet,
    "corrupted": lambda root: write_classes(root / "fog" / "1", WNIDS, size=(224, 224)).parents[1],
    "corrupted in groups": lambda root: write_classes(root / "weather" / "fog" / "1", WNIDS).parents[2],
    "corrupted by others": lambda root: write_classes(root / "dust_on_lens" / "1", WNIDS).parents[1],
    "one corruption": lambda root: write_classes(root / "fog" / "1", WNIDS).parent,
    "arrays": arrays,
    "coco": coco,
}
"""Thirty folders; what each is, is told by the tests beside."""

MCE_READS = frozenset(
    (
        *("words", "words in two cases", "letters of two forms", "wnids", "wnids in val", "numbers to 11"),
        *("padded numbers", "a thousand numbers", "one stem twice", "all endings", "an empty class"),
        *("folders in folders", "litter", "a hidden folder", "an archiver's folder", "tiny", "tiny as downloaded"),
    )
)
"""Those of clean images whose classes are known."""


def mce_labels(root: Path) -> dict[str, int] | str:
    """Key and class of each clean image that `mce` takes, or why it takes none."""
    run = ClassificationOptions(models=(), data=root, store=Path("store"), corruptions=("fog",), severities=(1,))
    try:
        prepared = prepare(run)
    except ValueError as error:
        return str(error)
    return {image.key: image.label for image in prepared.images.images}


def corrupt_keys(root: Path, destination: Path) -> set[str] | str:
    """Keys of the images that `corrupt` takes, or why it takes none."""
    try:
        tree = plan_tree(root, destination, ["fog"], [1])
    except ValueError as error:
        return str(error)
    targets = [image.target for image in tree.source.images]
    assert len(set(targets)) == len(targets)
    return {str(image.key) for image in tree.source.images}


def tool_classes(root: Path) -> list[str] | str:
    """The folders that `tools/train.py` numbers, or why it refuses them."""
    cfg = {"val_dataloader": {"dataset": {"type": "CustomDataset", "data_root": str(root)}}}
    try:
        check_class_folders(cfg, ["val_dataloader"])
    except ValueError as error:
        return str(error)
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir())


@pytest.mark.parametrize("name", list(FOLDERS))
def test_one_folder_has_one_answer(tmp_path: Path, name: str) -> None:
    root = FOLDERS[name](tmp_path / "data")
    found = recognise(root)
    labels, keys, classes = mce_labels(root), corrupt_keys(root, tmp_path / "out"), tool_classes(root)
    assert (not isinstance(labels, str)) == (name in MCE_READS or found.kind == "corrupted"), labels
    if found.kind == "corrupted":
        assert isinstance(keys, str)
        assert "corrupted already" in keys
        return
    if isinstance(labels, str):
        # What `mce` cannot name the classes of, `corrupt` takes for images alone, or refuses too.
        assert labels.startswith("expected ")
        return
    # Where both read, they read the same files under the same names.
    assert {*labels} == keys
    if isinstance(classes, str):
        assert "move them away" in classes
        return
    if found.root == root and found.kind == "class_folders" and found.classes == "folder":
        remarked = {remark.kind for remark in _remarks(root)}
        same = all(classes.index(key.partition("/")[0]) == label for key, label in labels.items())
        assert same == ("numbered_folders" not in remarked)


def _remarks(root: Path) -> tuple:
    run = ClassificationOptions(models=(), data=root, store=Path("store"), corruptions=("fog",), severities=(1,))
    return prepare(run).remarks


def test_hidden_folders_are_classes_to_mmpretrain(tmp_path: Path) -> None:
    """What the refusal of `tools/` says of mmpretrain is so."""
    custom = pytest.importorskip("mmpretrain.datasets.custom")
    write_classes(tmp_path, ("cat", "dog"))
    (tmp_path / ".cache").mkdir()
    assert custom.find_folders(str(tmp_path))[0] == [".cache", "cat", "dog"]
