"""What a folder is, said from the evidence in it, and what to do where it has no classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from odd_folders import WNIDS, arrays, coco, link_classes, tiny_imagenet, val_files, write_classes, write_image

from dtn_det.check import inspect_path
from dtn_det.corrupted_folders.layouts import list_folder
from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.label_maps import imagenet_subset, imagenet_wnids
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.robustness.classification.data import prepare
from dtn_det.robustness.options import ClassificationOptions

pytest.importorskip("timm", reason="ImageNet's classes come from timm")


@pytest.mark.parametrize(
    ("tree", "title"),
    [
        ("plasma_noise/1.00", "by corruptions of C-bar that dtn-det does not evaluate (plasma_noise/1.00)"),
        ("3d/near_focus/6", "by corruptions of 3DCC that dtn-det does not evaluate (3d/near_focus/6)"),
        ("dust_on_lens/2", "by corruptions that dtn-det does not evaluate (dust_on_lens)"),
    ],
)
@pytest.mark.parametrize("classes", [WNIDS[:2], ("cat", "dog")])
def test_corruptions_of_others_are_refused_by_name(tmp_path: Path, tree: str, title: str, classes: tuple[str]) -> None:
    write_classes(tmp_path / tree, classes)
    found = recognise(tmp_path)
    assert found.kind == "unknown_corruptions"
    assert title in found.title
    with pytest.raises(ValueError, match=r"dtn-det does not evaluate .* name a folder of ImageNet-C's corruptions"):
        list_images(tmp_path)


def test_one_corruption_and_one_cell_are_no_clean_images(tmp_path: Path) -> None:
    for severity in ("1", "2"):
        write_classes(tmp_path / "c" / "fog" / severity, WNIDS[:2])
    assert recognise(tmp_path / "c").kind == "corrupted"
    with pytest.raises(ValueError, match=rf"the severities of one corruption \(1, 2\) .* above it, {tmp_path / 'c'}"):
        list_images(tmp_path / "c" / "fog")
    with pytest.raises(ValueError, match=rf"those of fog at severity 2 in .*: name .* {tmp_path / 'c'}, and choose"):
        list_images(tmp_path / "c" / "fog" / "2")


def test_folders_of_known_and_unknown_corruptions_tell_what_is_passed_over(tmp_path: Path) -> None:
    for name in ("fog", "dust_on_lens"):
        write_classes(tmp_path / name / "1", WNIDS[:2])
    found = recognise(tmp_path)
    assert found.kind == "corrupted"
    assert found.corruptions is not None
    assert list(found.corruptions.cells) == [("fog", 1)]
    (remark,) = found.remarks
    assert (remark.kind, remark.examples) == ("unknown_corruptions", ("dust_on_lens",))


@pytest.mark.parametrize("group", ["", "weather/"])
def test_folders_beside_the_severities_are_told(tmp_path: Path, group: str) -> None:
    for severity in (*range(7), "clean"):
        write_classes(tmp_path / f"{group}fog" / str(severity), WNIDS[:2])
    found = recognise(tmp_path)
    assert found.kind == "corrupted"
    assert found.corruptions is not None
    assert sorted(found.corruptions.cells) == [("fog", severity) for severity in range(1, 6)]
    (remark,) = found.remarks
    assert remark.kind == "other_severities"
    assert remark.sentence() == (
        f"{tmp_path}: 3 folders beside those of severities 1 to 5 were passed over "
        f"({group}fog/0, {group}fog/6, {group}fog/clean)"
    )


def test_severities_that_no_corruption_has_are_refused(tmp_path: Path) -> None:
    for severity in (0, 6):
        write_classes(tmp_path / "fog" / str(severity), WNIDS[:2])
    found = recognise(tmp_path)
    assert found.kind == "unknown_corruptions"
    assert found.title.endswith("by corruptions that dtn-det does not evaluate (fog/0, fog/6)")


def test_sets_of_imagenet_are_told_by_names(tmp_path: Path) -> None:
    renditions, adversarial = (sorted(imagenet_subset(name)) for name in ("imagenet_r", "imagenet_a"))
    assert len(renditions) == len(adversarial) == 200
    assert {*renditions, *adversarial} <= {*imagenet_wnids()}
    cases = [
        (link_classes(tmp_path / "r", renditions, "art_0.jpg"), "ImageNet-R"),
        (write_classes(tmp_path / "part", renditions[:3], ("sketch_1.jpg", "toy_2.jpg")), "ImageNet-R"),
        (link_classes(tmp_path / "a", adversarial, "0.000116_digital clock _ clock_0.865662.jpg"), "ImageNet-A"),
        (link_classes(tmp_path / "s", imagenet_wnids(), "sketch_0.JPEG"), "ImageNet-Sketch"),
        (
            link_classes(tmp_path / "v2", map(str, range(1000)), "0af3f1b55de791c4144e2fb6d7dfe96dfc22d3fc.jpeg"),
            "ImageNet-V2",
        ),
        (link_classes(tmp_path / "val", imagenet_wnids(), val_files()[0]), "ImageNet"),
        (write_classes(tmp_path / "clean_r", renditions[:3], val_files()), "ImageNet"),
        (write_classes(tmp_path / "own", WNIDS), ""),
    ]
    assert [recognise(root).dataset for root, _ in cases] == [dataset for _, dataset in cases]


@pytest.mark.parametrize("name", ["imagenet_r", "imagenet_a"])
def test_sets_of_200_classes_are_not_scored_among_a_thousand(tmp_path: Path, name: str) -> None:
    root = link_classes(tmp_path / "set", sorted(imagenet_subset(name)), "x.jpg")
    labels = list_images(root).labels
    assert labels.classes == name.replace("_", "-")
    assert [imagenet_wnids()[place] for place in labels.places] == list(labels.names)
    assert list_images(root, "folder").num_classes == 200


def test_splits_beside_val_are_told(tmp_path: Path) -> None:
    write_classes(tmp_path / "val", WNIDS)
    assert not [remark for remark in list_images(tmp_path).remarks if remark.kind == "split"]
    write_classes(tmp_path / "train", WNIDS)
    (remark,) = [remark for remark in list_images(tmp_path).remarks if remark.kind == "split"]
    assert remark.sentence() == f"{tmp_path}: 1 folder beside val was passed over: name it to take it (train)"


def test_tiny_imagenet_as_downloaded_is_read_with_its_classes(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path)
    for folder in (root, root / "val"):
        images = list_images(folder)
        assert [(image.key, image.label) for image in images.images][:3] == [
            (f"{WNIDS[0]}/val_0.JPEG", 0),
            (f"{WNIDS[0]}/val_7.JPEG", 0),
            (f"{WNIDS[1]}/val_1.JPEG", 1),
        ]
        assert images.labels.names == WNIDS
        assert Path(images.images[1].path) == root / "val" / "images" / "val_7.JPEG"
    assert recognise(root).profile == "tiny-imagenet-c"


def test_wnids_txt_names_the_classes_that_have_no_images(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path)
    more = (*WNIDS, "n01440764", "n09999999")
    (root / "wnids.txt").write_text("\n".join(reversed(more)))
    order = sorted({*more})
    for folder in (root, root / "val"):
        images = list_images(folder)
        assert images.labels.names == tuple(order)
        assert {image.label for image in images.images} == {order.index(wnid) for wnid in WNIDS}
        assert "empty_class_folders" in [remark.kind for remark in images.remarks]
        # A corrupted tree is numbered by them too.
        assert list_folder(folder, "imagenet").classes == tuple(order)


def test_wnids_txt_of_another_set_is_told(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path)
    (root / "wnids.txt").write_text("\n".join(WNIDS[1:]))
    with pytest.raises(
        ValueError, match=rf"to be among those of wnids.txt, got '{WNIDS[0]}' besides: fetch both files"
    ):
        list_images(root)


def test_some_class_folders_of_tiny_imagenet_have_all_its_classes(tmp_path: Path) -> None:
    listed = sorted({*imagenet_wnids()[::5]})
    link_classes(tmp_path / "val", listed[:8], "a.JPEG")
    assert recognise(tmp_path / "val").classes == "imagenet"
    (tmp_path / "wnids.txt").write_text("\n".join(listed))
    images = list_images(tmp_path / "val")
    assert (images.num_classes, images.num_folders) == (200, 8)
    assert recognise(tmp_path / "val").dataset == "Tiny-ImageNet"
    assert list_images(tmp_path / "val", "imagenet").num_classes == 1000


@pytest.mark.parametrize("line", ["val_0.JPEG", "val_0.JPEG\tcat\t1", f"val_0.JPEG\t{WNIDS[1]}"])
def test_annotations_of_tiny_imagenet_that_are_damaged_are_named(tmp_path: Path, line: str) -> None:
    root = tiny_imagenet(tmp_path)
    path = root / "val" / "val_annotations.txt"
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(ValueError, match=r"expected a file name and its wnid in line 9 of .*: fetch the file again"):
        list_images(root)


def test_an_image_that_tiny_imagenet_does_not_name(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path)
    write_image(root / "val" / "images" / "val_99.JPEG")
    with pytest.raises(ValueError, match=r"expected the images of val_annotations.txt in .*images, got 'val_99.JPEG'"):
        list_images(root)


def test_tiny_imagenet_c_tells_its_profile_its_classes_and_that_it_has_no_clean_twin(tmp_path: Path) -> None:
    wnids = imagenet_wnids()[:200]
    link_classes(tmp_path / "fog" / "1", wnids, "test_1.JPEG", (64, 64))
    found = recognise(tmp_path)
    assert (found.dataset, found.classes, found.profile) == ("Tiny-ImageNet-C", "folder", "tiny-imagenet-c")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            arrays,
            r"got images corrupted already, as NumPy arrays \(3 arrays such as fog.npy\) in .*: `dtn-det mce` eval",
        ),
        (coco, r"got a COCO data set .*: evaluate detectors on it with `dtn-det mpc`"),
        (
            lambda root: write_image(root / "a.png").parent,
            r"got 'a.png' in .* itself: move each into the folder of its",
        ),
        (lambda root: write_image(root / val_files()[0]).parent, r"got 'ILSVRC2012_val_00000001.JPEG' .*valprep\.sh"),
        (
            lambda root: write_classes(root / "train", ("cat", "dog")).parent,
            r"got the splits of a data set \(train\) in .*: name one of them that has class folders, such as .*train",
        ),
        (lambda root: write_classes(root, ("train", "test")), r"got the splits of a data set \(test, train\)"),
        (lambda root: root.mkdir() or root, r"expected images \(.jpg, .* in .*, got none: name the folder"),
    ],
    ids=["arrays", "coco", "images", "unsorted", "train", "splits", "empty"],
)
def test_what_has_no_classes_says_what_to_do(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list_images(make(tmp_path / "data"))


def test_npz_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "images.npz").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"got a folder without images \(images.npz\) in .*: npz archives are not read;"
    ):
        list_images(tmp_path)


def test_images_beside_annotations_name_the_file(tmp_path: Path) -> None:
    coco(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    for other in ("captions_val2017.json", "instances_train2017.json"):
        (file.parent / other).write_text("{}")
    with pytest.raises(ValueError, match=rf"seem to lie in {file}, one of 3: `dtn-det check {file}` says"):
        list_images(tmp_path / "val2017")
    (found,) = inspect_path(file)
    assert (found.path, found.kind) == (str(file), "coco")


def test_parts_of_imagenet_are_no_classes(tmp_path: Path) -> None:
    training = ("n01616318_vulture.JPEG", "n01740131_night_snake.JPEG")
    write_classes(tmp_path / "sample", ("train_fullsize",), training)
    write_classes(tmp_path / "sample", ("val227",), val_files())
    assert recognise(tmp_path / "sample").kind == "unsorted"
    with pytest.raises(
        ValueError, match=r"got images of ImageNet that are not sorted .*val227\) in .*: sort ImageNet's"
    ):
        list_images(tmp_path / "sample")
    # Classes whose names begin like those of splits.
    for number, name in enumerate(("test_tube", "train_station")):
        write_classes(tmp_path / "things", (name,), (f"n0000000{number}_1.JPEG", f"n0000000{number}_2.JPEG"))
    assert list_images(tmp_path / "things").num_classes == 2
    assert not recognise(tmp_path / "things").remarks


@pytest.mark.parametrize("names", [val_files(), ("n01616318_vulture.JPEG", "n01740131_night_snake.JPEG")])
@pytest.mark.parametrize("folder", ["ILSVRC2012_img_val", "pictures"])
def test_imagenet_in_one_folder_is_not_one_class(tmp_path: Path, folder: str, names: Sequence[str]) -> None:
    write_classes(tmp_path / "val", (folder,), names)
    for root in (tmp_path, tmp_path / "val"):
        with pytest.raises(ValueError, match=rf"got images of ImageNet .*{folder}\) in .*val: sort ImageNet's"):
            list_images(root)
        (result,) = inspect_path(root)
        assert (result.kind, result.is_good) == ("unsorted", False)
    # One sorted class stays a class: its files have names of one class, or its folder is named by it.
    write_classes(tmp_path / "one" / "wnid", (WNIDS[0],), val_files())
    assert recognise(tmp_path / "one" / "wnid").kind == "class_folders"
    write_classes(tmp_path / "one" / "word", ("goldfish",), val_files())
    assert recognise(tmp_path / "one" / "word").kind == "class_folders"


def test_one_class_is_refused_for_its_error_says_nothing(tmp_path: Path) -> None:
    write_classes(tmp_path, ("cat",))
    message = r"expected images of at least two classes in .*, got the one class 'cat', for which the error .* is 0"
    with pytest.raises(ValueError, match=message):
        prepare(ClassificationOptions(models=(), data=tmp_path, store=tmp_path / "store", corruptions=("fog",)))
    (result,) = inspect_path(tmp_path)
    assert result.problems[0].endswith("(`corrupt` takes it)")
    assert not result.is_good
    write_classes(tmp_path, ("dog",))
    assert prepare(ClassificationOptions(models=(), data=tmp_path, store=tmp_path / "store")).images.num_classes == 2
    assert inspect_path(tmp_path)[0].is_good


def test_folders_of_several_of_imagenets_classes_are_told(tmp_path: Path) -> None:
    write_classes(tmp_path / "pets", ("cat",), ("n02123045_1.JPEG", "n02123159_2.JPEG"))
    write_classes(tmp_path / "pets", ("dog",), ("n02110185_1.JPEG", "n02110185_2.JPEG"))
    (remark,) = list_images(tmp_path / "pets").remarks
    assert (remark.kind, remark.count, list(remark.examples), remark.partial) == ("several_wnids", 1, ["cat"], False)


def test_of_several_splits_val_is_taken_and_told(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_classes(tmp_path / split, ("cat", "dog"))
    images = list_images(tmp_path)
    assert [image.key for image in images.images] == ["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"]
    assert [remark.kind for remark in images.remarks] == ["split"]
    assert all(Path(image.path).is_relative_to(tmp_path / "val") for image in images.images)


def test_tiny_imagenet_c_says_that_its_clean_twin_is_missing(tmp_path: Path) -> None:
    link_classes(tmp_path / "tree" / "fog" / "1", imagenet_wnids()[:200], "test_1.JPEG", (64, 64))
    run = ClassificationOptions(
        models=(), data=tmp_path / "tree", store=tmp_path / "store", corruptions=("fog",), severities=(1,)
    )
    prepared = prepare(run)
    assert (prepared.side, prepared.classes, prepared.images.num_classes) == (64, "folder", 200)
    assert {remark.kind for remark in prepared.remarks} == {"no_clean_twin", "profile_by_size"}
    link_classes(tmp_path / "tree" / "frost" / "1", imagenet_wnids(), "test_1.JPEG", (64, 64))
    with pytest.raises(
        ValueError, match=r"(?s)fog/1 lacks 800: .*frost in the first archive .* 1,000 classes \(hendrycks"
    ):
        prepare(dataclasses.replace(run, corruptions=("fog", "frost")))
    # The advice works.
    assert prepare(dataclasses.replace(run, corruptions=("fog",))).images.num_classes == 200
