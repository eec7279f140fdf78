"""File names without the folders that their images lie in: every command says what to write, and then runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("mmdet", reason="detectors need MMDetection")

from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from printed_advice import printed_options

from dtn_det.check import inspect_path
from dtn_det.corrupted_folders.layouts import list_coco
from dtn_det.datasets.configs.files import check_files
from dtn_det.errors import InputError
from dtn_det.robustness.detection.data import read_data

SPLITS = ("train", "val")


def write(root: Path, names: list[str], splits: tuple[str, ...] = SPLITS) -> Path:
    """One object in each image; all splits number their images alike."""
    images = [{"id": number, "file_name": name, "width": 16, "height": 16} for number, name in enumerate(names, 1)]
    box = {"bbox": [2, 3, 8, 6], "area": 48, "iscrowd": 0, "category_id": 1}
    objects = [{"id": number, "image_id": number, **box} for number in range(1, len(names) + 1)]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "disc"}]}
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split in splits:
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def save(root: Path, *paths: str, splits: tuple[str, ...] = SPLITS) -> None:
    for split in splits:
        for path in paths:
            (root / split / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16)).save(root / split / path)


def config(root: Path) -> Config:
    init_default_scope("mmdet")
    settings = {"type": "CocoDataset", "data_root": f"{root}/", "metainfo": {"classes": ("disc",)}}
    settings |= {"pipeline": [{"type": "LoadImageFromFile"}]}
    return Config(
        {
            f"{loader}_dataloader": {
                "dataset": {
                    **settings,
                    "ann_file": f"annotations/instances_{split}.json",
                    "data_prefix": {"img": f"{split}/"},
                    "test_mode": loader == "test",
                }
            }
            for loader, split in (("train", "train"), ("test", "val"))
        }
        | {"test_evaluator": {"type": "CocoMetric"}}
    )


def check(root: Path) -> None:
    problems = [problem for result in inspect_path(root) for problem in result.problems]
    if problems:
        raise InputError(problems[-1])


READERS: dict[str, Callable[[Path], object]] = {
    "mpc": lambda root: read_data(config(root), "test").file_sizes(),
    "test": lambda root: check_files(config(root), ["test_dataloader"], root / "work"),
    "train": lambda root: check_files(config(root), ["train_dataloader"], root / "work"),
    "check": check,
    "corrupt": lambda root: list_coco(root, [Path("annotations/instances_val.json")]),
}


@pytest.mark.parametrize("reader", list(READERS))
@pytest.mark.parametrize(
    ("names", "there"),
    [
        (["1.png", "1.png", "2.png", "2.png"], ["Job1/1.png", "Job2/1.png", "Job1/2.png", "Job2/2.png"]),
        (["1.png", "1.png", "2.png"], ["Job1/1.png", "Job2/1.png", "Job1/2.png"]),
        (["1.png", "2.png", "3.png"], ["Job1/1.png", "Job2/2.png", "Job2/3.png"]),
    ],
    ids=["one name in two folders", "some names in two folders", "each name in one of two folders"],
)
def test_the_advice_lets_every_command_read_the_set(
    names: list[str], there: list[str], reader: str, tmp_path: Path
) -> None:
    root = write(tmp_path, names)
    save(root, *there)
    with pytest.raises(InputError) as caught:
        READERS[reader](root)
    said = str(caught.value)
    found = re.search(r"([^ ]+\.png) lies in (.*), so write the folder into file_name, such as '(.*)'$", said)
    assert found is not None, said
    assert found[3] in there
    assert found[3].endswith(f"/{found[1]}")
    split = "train" if reader == "train" else "val"
    holders = [str((root / split / path).parent) for path in there if path.endswith(f"/{found[1]}")]
    assert found[2] == " and ".join(holders)
    # Folders of the other split have images of these names too, and are not this file's.
    assert str(root / ("val" if split == "train" else "train")) not in said.partition(", got ")[2]
    write(root, there)
    READERS[reader](root)


@pytest.mark.parametrize("reader", ["mpc", "test", "train"])
def test_one_folder_with_all_images_is_an_option(reader: str, tmp_path: Path) -> None:
    root = write(tmp_path, ["1.png", "2.png"])
    save(root, "Job1/1.png", "Job1/2.png", "Job2/1.png")
    with pytest.raises(InputError, match=r"Job1/1.png is there, so name its folder with --cfg-options") as caught:
        READERS[reader](root)
    (option,) = printed_options(str(caught.value))
    key, _, value = option.partition("=")
    assert Path(value) == root / ("train" if reader == "train" else "val") / "Job1"
    cfg = config(root)
    cfg.merge_from_dict({key: value})
    if reader == "mpc":
        assert len(read_data(cfg, "test").file_sizes()) == 2
    else:
        assert check_files(cfg, [f"{reader}_dataloader"], root / "work") == ()


def test_folders_of_one_split_are_chosen_by_its_name(tmp_path: Path) -> None:
    root = write(tmp_path, ["1.png", "2.png"])
    save(root, "images/1.png", "images/2.png")
    check(root)
    small = {remark.sentence() for result in inspect_path(root) for remark in result.remarks}
    assert any("2 images of 2 looked at have fewer pixels than corruptions need" in text for text in small)
    source = list_coco(root, [Path("annotations/instances_val.json")])
    assert [str(image.target) for image in source.images] == ["val/images/1.png", "val/images/2.png"]


def test_folders_that_no_name_tells_apart(tmp_path: Path) -> None:
    root = write(tmp_path, ["1.png", "2.png"], splits=("all",))
    save(root, "1.png", "2.png", splits=("left", "right"))
    with pytest.raises(InputError, match="got left, right: choose with --images"):
        list_coco(root, [])
    assert len(list_coco(root, [], Path("right")).images) == 2
    # Here is no such option.
    with pytest.raises(InputError, match=r"so write the folder into file_name, such as 'left/1.png'$"):
        check(root)
    check(write(root, ["left/1.png", "left/2.png"], splits=("all",)))


def test_images_that_are_not_there_are_to_be_fetched(tmp_path: Path) -> None:
    root = write(tmp_path, ["1.png", "2.png", "3.png"])
    save(root, "1.png", "2.png")
    with pytest.raises(InputError, match=r"got 1 of 3 missing, such as 3.png: fetch them"):
        check(root)
    fetch = r"val/{}.png: fetch them, or name the right folder with --data-root"
    with pytest.raises(InputError, match=fetch.format(3)):
        READERS["mpc"](root)
    # Images of the other split are no substitute.
    save(root, "3.png", splits=("train",))
    with pytest.raises(InputError, match=fetch.format(3)):
        READERS["mpc"](root)
    shutil.rmtree(root / "val")
    with pytest.raises(InputError, match=fetch.format(1)):
        READERS["mpc"](root)
