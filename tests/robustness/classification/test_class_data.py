"""Clean folders and corrupted trees: classes, what is verified, and that both give the same answers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from class_folders import WNIDS, picture, write_folders

from dtn_det.cli.main import main
from dtn_det.corrupted_folders.reading import list_tree, open_tree
from dtn_det.corruptions.cells import Cell
from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.corruption_folders import find_corruptions
from dtn_det.datasets.folders.image_files import look
from dtn_det.datasets.folders.label_maps import imagenet_wnids
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.robustness.classification.data import prepare
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store import Store

CELLS = (Cell("fog", 1), Cell("fog", 2))


def test_classes_are_numbered_by_the_whole_list_of_wnids(tmp_path: Path) -> None:
    write_folders(tmp_path)
    images = list_images(tmp_path, "imagenet")
    assert len(imagenet_wnids()) == images.num_classes == 1000
    assert imagenet_wnids() == tuple(sorted(imagenet_wnids()))
    assert {image.key.split("/")[0]: image.label for image in images.images} == {
        "n01440764": 0,
        "n01443537": 1,
        "n02012849": 134,
        "n15075141": 999,
    }


def test_val_within_the_folder_is_found(tmp_path: Path) -> None:
    write_folders(tmp_path / "val")
    assert recognise(tmp_path).classes == "imagenet"
    assert list_images(tmp_path, "imagenet").images[0].key == "n01440764/image_0.png"


def test_other_folders_are_numbered_by_name(tmp_path: Path) -> None:
    write_folders(tmp_path, ("dog", "ant"))
    assert recognise(tmp_path).classes == "folder"
    images = list_images(tmp_path, "folder")
    assert [(image.key, image.label) for image in images.images][1:3] == [
        ("ant/image_1.png", 0),
        ("dog/image_0.png", 1),
    ]
    assert images.num_classes == 2


def test_a_limit_is_fixed_and_named(tmp_path: Path) -> None:
    write_folders(tmp_path, ("dog", "ant"), per_class=10)
    first, again, other = (list_images(tmp_path, "folder", 5, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.images != other.images
    assert first.selection == "limit=5 of 20 seed=0"
    assert list_images(tmp_path, "folder", 20).selection == "all"


@pytest.mark.parametrize(
    ("stray", "classes", "message"),
    [
        ("extra/image.png", "imagenet", "expected class folders of ImageNet-1k such as n01440764 in .*, got 'extra'"),
        ("n99999999/image.png", "imagenet", "got 'n99999999'"),
        ("image.png", "folder", "got 'image.png' in .* itself: move each into the folder of its class"),
    ],
)
def test_images_without_a_class_are_named(tmp_path: Path, stray: str, classes: str, message: str) -> None:
    write_folders(tmp_path)
    path = tmp_path / stray
    path.parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / WNIDS[0] / "image_0.png", path)
    with pytest.raises(ValueError, match=message):
        list_images(tmp_path, classes)


def test_folders_without_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        list_images(tmp_path / "absent", "folder")
    with pytest.raises(ValueError, match="expected images"):
        list_images(tmp_path, "folder")
    with pytest.raises(ValueError, match="expected images"):
        list_images(tmp_path, "imagenet")


@pytest.mark.parametrize("classes", ["imagenet", "folder"])
def test_validation_images_that_are_not_sorted_say_how_to_sort_them(tmp_path: Path, classes: str) -> None:
    write_folders(tmp_path / "sorted")
    image = next((tmp_path / "sorted").rglob("*.png"))
    flat = tmp_path / "val"
    flat.mkdir()
    for number in range(2):
        shutil.copy(image, flat / f"ILSVRC2012_val_0000000{number}.JPEG")
    with pytest.raises(ValueError, match=r"got 'ILSVRC2012_val_00000000.JPEG' in .*val itself: sort .*valprep\.sh"):
        list_images(flat, classes)


@pytest.mark.parametrize(
    ("corruption", "severity"),
    [
        ("fog", "1"),
        ("Fog", "severity_1"),
        ("weather/fog", "severity1"),
        ("FOG", "s1"),
        ("weather/Fog", "Severity-1"),
        ("fog", "01"),
        ("fog", "severity_01"),
    ],
)
def test_variants_of_the_layout(tmp_path: Path, corruption: str, severity: str) -> None:
    write_folders(tmp_path / corruption / severity)
    assert find_corruptions(tmp_path, look(tmp_path)).cells == {Cell("fog", 1): tmp_path / corruption / severity}


def test_names_with_dashes_and_blanks(tmp_path: Path) -> None:
    write_folders(tmp_path / "Gaussian-Noise" / "3")
    write_folders(tmp_path / "digital" / "JPEG Compression" / "5")
    assert set(find_corruptions(tmp_path, look(tmp_path)).cells) == {
        Cell("gaussian_noise", 3),
        Cell("jpeg_compression", 5),
    }


def test_a_clean_folder_is_no_tree(tmp_path: Path) -> None:
    write_folders(tmp_path / "val")
    assert not find_corruptions(tmp_path, look(tmp_path)).cells
    assert not find_corruptions(tmp_path / "val", look(tmp_path / "val")).cells


def test_one_cell_in_two_places_is_named(tmp_path: Path) -> None:
    write_folders(tmp_path / "fog" / "1")
    write_folders(tmp_path / "fog" / "severity_1")
    with pytest.raises(ValueError, match="expected one folder for fog at severity 1"):
        recognise(tmp_path)


def test_cells_that_are_not_there_are_named(tmp_path: Path) -> None:
    write_folders(tmp_path / "fog" / "1")
    tree = open_tree(recognise(tmp_path))
    with pytest.raises(ValueError, match="got none for fog 2"):
        list_tree(tree, CELLS, "imagenet", None, 0)


def test_the_advice_for_a_part_of_a_tree_takes_what_is_there(tmp_path: Path) -> None:
    for cell in ("fog/1", "fog/2", "fog/3", "contrast/2", "contrast/3"):
        write_folders(tmp_path / cell)
    tree = open_tree(recognise(tmp_path))
    wanted = [Cell(name, severity) for name in ("snow", "fog", "contrast") for severity in range(1, 6)]
    message = (
        "got none for fog 4, 5; contrast 1, 4, 5; snow: fetch what is missing, take --partial, or choose with "
        "--corruptions fog contrast --severities 2 3$"
    )
    with pytest.raises(ValueError, match=message):
        list_tree(tree, wanted, "imagenet", None, 0)
    there = [cell for cell in wanted if cell.corruption != "snow" and cell.severity in (2, 3)]
    assert list_tree(tree, there, "imagenet", None, 0)[0].num_found == 8


def test_a_folder_without_images_counts_in_whichever_cell_it_is(tmp_path: Path) -> None:
    for severity in ("1", "2"):
        write_folders(tmp_path / "fog" / severity)
    (tmp_path / "fog" / "2" / "another").mkdir()
    tree = open_tree(recognise(tmp_path))
    for cells, number in ((CELLS, 5), (CELLS[::-1], 5), (CELLS[1:], 5), (CELLS[:1], 4)):
        assert list_tree(tree, cells, "folder", None, 0)[0].num_classes == number


def test_images_that_differ_between_cells_are_named(tmp_path: Path) -> None:
    for severity in ("1", "2"):
        write_folders(tmp_path / "fog" / severity)
    (tmp_path / "fog" / "2" / WNIDS[1] / "image_0.png").rename(tmp_path / "fog" / "2" / WNIDS[1] / "surplus.png")
    tree = open_tree(recognise(tmp_path))
    with pytest.raises(ValueError, match="expected the same 8 images") as error:
        list_tree(tree, CELLS, "imagenet", None, 0)
    assert f"lacks 1: {WNIDS[1]}/image_0.png" in str(error.value)
    assert f"has besides 1: {WNIDS[1]}/surplus.png" in str(error.value)


def test_a_tree_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "fog" / "1").mkdir(parents=True)
    tree = open_tree(recognise(tmp_path))
    with pytest.raises(ValueError, match="expected images in class folders"):
        list_tree(tree, CELLS[:1], "imagenet", None, 0)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "tree_model.py").write_text(
        "import torch\n\n\nclass Mean(torch.nn.Module):\n    def forward(self, images):\n"
        "        values = torch.nn.functional.adaptive_avg_pool2d(images, 19).flatten(1)\n"
        "        return 10 * values[:, :1000]\n\n\ndef mean():\n    return Mean()\n"
        "\n\nclass Three(Mean):\n    def forward(self, images):\n        return super().forward(images)[:, :3]\n"
        "\n\ndef three():\n    return Three()\n"
    )
    monkeypatch.chdir(tmp_path)
    return "python:tree_model:mean"


CHOICE = ("--corruptions", "noise", "elastic_transform", "pixelate", "--severities", "1", "4")


def mce(model: str, store: str, *options: str) -> int:
    return main(["mce", model, "--store", store, "--workers", "0", "--device", "cpu", *CHOICE, *options])


def answers(store: str) -> list[dict[str, object]]:
    return [row for unit in Store.open(Path(store)).model("mean").batches() for row in unit.to_pylist()]


@pytest.mark.usefixtures("in_process")
def test_files_of_corrupt_give_the_answers_of_the_fly(tmp_path: Path, models: str, capsys) -> None:
    write_folders(tmp_path / "clean", per_class=1, side=250, suffix=".JPEG")
    assert main(["corrupt", "clean", "tree", "--workers", "1", "--yes", *CHOICE]) == 0
    assert mce(models, "fly", "--data", "clean") == 0
    assert mce(models, "disk", "--data", "tree", "--clean", "clean") == 0
    assert answers("disk") == answers("fly")
    assert Store.open(Path("disk")).manifest.corruption.startswith("files made with imagenet-c jpeg85")
    capsys.readouterr()
    assert mce(models, "no_clean", "--data", "tree") == 0
    assert "no clean images: name them with --clean" in " ".join(capsys.readouterr().out.split())
    first = next(row for row in answers("fly") if row["cell"] == 1)
    assert first["confidence"] == answers("no_clean")[0]["confidence"]


def test_what_is_wrong_with_a_tree_is_told(tmp_path: Path, models: str, capsys: pytest.CaptureFixture[str]) -> None:
    for severity in ("1", "2"):
        write_folders(tmp_path / "tree" / "fog" / severity, side=224)
    write_folders(tmp_path / "clean", WNIDS[:3])
    choice = ("--corruptions", "fog", "--severities", "1", "2")
    assert mce(models, "a", "--data", "tree", "--clean", "clean", *choice) == 1
    assert f"got 2 of 8 missing ({WNIDS[3]}/image_0, {WNIDS[3]}/image_1)" in capsys.readouterr().err
    assert mce(models, "b", "--data", "tree", "--seed", "1", *choice) == 1
    assert "expected --seed, --no-jpeg, --frost and --engine with clean images only" in capsys.readouterr().err
    path = tmp_path / "tree" / "fog" / "2" / WNIDS[0] / "image_0.png"
    os.truncate(path, 100)
    assert mce(models, "c", "--data", "tree", *choice) == 1
    assert f"got {Path('tree/fog/2') / WNIDS[0] / 'image_0.png'}: " in capsys.readouterr().err


FEW = ("--corruptions", "noise", "--severities", "1", "4", "--workers", "1")


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("options", [(), ("--profile", "imagenet-c", "--resize", "--format", "jpeg")])
def test_what_corrupt_writes_of_class_folders_is_read(
    tmp_path: Path, models: str, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    for number, name in enumerate(("ant", "bee", "cat")):
        for index in range(2):
            path = tmp_path / "clean" / name / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(10 * number + index, 300).crop((0, 0, 300, 260)).save(path)
    assert main(["corrupt", "clean", "tree", "--yes", *FEW, *options]) == 0
    said = capsys.readouterr().out
    assert ("pass --profile imagenet-c --resize --format jpeg; it reads" in said) == (not options)
    model = models.replace("mean", "three")
    arguments = ["mce", model, "--store", "store", "--device", "cpu", "--data", "tree", "--clean", "clean"]
    assert main([*arguments, *FEW, "--workers", "0"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    manifest = Store.open(Path("store")).manifest
    after = "note: tree: 1 tree was corrupted at the images' own size, such as 300 x 260"
    assert (after in out) == (not options)
    assert manifest.protocol["clean"].endswith("after the corruption") == (not options)
    assert [remark.kind for remark in manifest.remarks] == ([] if options else ["cropped_after_corruption"])
    table = Store.open(Path("store")).images().to_pylist()
    assert [row["label"] for row in table] == [0, 0, 1, 1, 2, 2]


@pytest.mark.usefixtures("in_process")
def test_a_part_of_a_tree_has_the_numbers_of_all_classes(tmp_path: Path, models: str) -> None:
    write_folders(tmp_path / "clean", ("ant", "bee", "cat", "dog"), per_class=3)
    assert main(["corrupt", "clean", "tree", "--yes", "--limit", "2", *FEW]) == 0
    tree = open_tree(recognise(Path("tree")))
    images, _ = list_tree(tree, [Cell("gaussian_noise", 1)])
    assert images.num_classes == 4
    numbers = {"ant": 0, "bee": 1, "cat": 2, "dog": 3}
    assert {image.key.split("/")[0]: image.label for image in images.images}.items() <= numbers.items()
    # A tree of an earlier version, which is refused with what to do; that works.
    path = Path("tree/corruptions.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "classes"}))
    with pytest.raises(ValueError, match="write it again with the same `dtn-det corrupt` command"):
        list_tree(open_tree(recognise(Path("tree"))), [Cell("gaussian_noise", 1)])
    assert main(["corrupt", "clean", "tree", "--yes", "--limit", "2", *FEW]) == 0
    assert json.loads(path.read_text()) == content


@pytest.mark.usefixtures("in_process")
def test_small_images_choose_their_benchmark_and_say_so(
    tmp_path: Path, models: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folders(tmp_path / "clean", WNIDS, side=64)
    assert mce(models, "fly", "--data", "clean") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1 benchmark was chosen by the size of the images: tiny-imagenet-c for 64 x 64 (--profile names" in out
    assert "no CE and mCE against AlexNet, whose errors are known for ImageNet-C alone: got images of 4 of" in out
    assert "partial (4 of ImageNet's 1,000 classes have images" in out
    tables = out[out.index("Classification: summary") : out.index("Data: clean")]
    assert "error" in tables
    assert "mCE" not in tables
    assert main(["corrupt", "clean", "tree", "--workers", "1", "--yes", *CHOICE]) == 0
    assert mce(models, "disk", "--data", "tree", "--clean", "clean") == 0
    assert answers("disk") == answers("fly")
    manifests = [Store.open(Path(store)).manifest for store in ("fly", "disk")]
    assert [manifest.recognised["profile"] for manifest in manifests] == ["tiny-imagenet-c"] * 2


@pytest.mark.parametrize(("side", "kinds"), [(224, ["taken_as_they_are"]), (240, [])])
def test_images_of_the_size_of_the_crop_are_told(side: int, kinds: list[str], tmp_path: Path) -> None:
    write_folders(tmp_path / "data", ("ant", "bee"), side=side)
    found = prepare(ClassificationOptions(models=("timm:resnet10t",), data=tmp_path / "data", store=tmp_path / "store"))
    assert [remark.kind for remark in found.remarks] == kinds
    for remark in found.remarks:
        assert remark.sentence() == (
            f"{tmp_path / 'data'}: 1 size of images is exactly 224 x 224: such images are taken as they are, without "
            "the resizing to 256 and the crop that images of other sizes get"
        )
