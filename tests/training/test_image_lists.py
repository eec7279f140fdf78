"""Lists of images and labels that do not fit the model or each other are refused before training."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtn_det.datasets.configs.settings import check_image_lists

NUMBERS = {"model.head.num_classes": 3}
LOADERS = ["train_dataloader", "val_dataloader"]


def config(root: Path, train: str, val: str) -> dict[str, object]:
    for name, text in (("train", train), ("val", val)):
        (root / "meta").mkdir(exist_ok=True)
        (root / "meta" / f"{name}.txt").write_text(text)
    return {
        "train_dataloader": {"dataset": {"type": "ImageNet", "data_root": str(root), "split": "train"}},
        "val_dataloader": {
            "dataset": {"type": "mmpretrain.CustomDataset", "data_root": str(root), "ann_file": "meta/val.txt"}
        },
    }


def test_lists_that_fit_pass(tmp_path: Path) -> None:
    flat = "a b.jpg 2\nc.jpg 0\n"
    check_image_lists(config(tmp_path, "cat/1.jpg 0\ndog/x/1.jpg 1\ndog/2.jpg 1\n", flat), LOADERS, NUMBERS)
    check_image_lists(config(tmp_path, "", ""), LOADERS, NUMBERS)
    # A folder of several classes is none.
    check_image_lists(
        config(tmp_path, "train/1.jpg 0\ntrain/2.jpg 1\n", "train/1.jpg 1\nx/2.jpg 0\n"), LOADERS, NUMBERS
    )


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (
            "cat/1.jpg 3\n",
            "",
            r"expected labels of 0 to 2 \(model.head.num_classes\) for train_dataloader, got 3 in line 1",
        ),
        (
            "cat/1.jpg 0\ncat/2.jpg\n",
            "",
            r"expected a path and a label in line 2 of .*train.txt, got 'cat/2.jpg': mend",
        ),
        (
            "cat/1.jpg 0\ndog/1.jpg 1\n",
            "val/dog/3.jpg 0\nval/cat/4.jpg 1\n",
            r"expected the label 1 for the folder 'dog' as in .*train.txt, got 0 in .*val.txt for val_dataloader",
        ),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, train: str, val: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_image_lists(config(tmp_path, train, val), LOADERS, NUMBERS)
