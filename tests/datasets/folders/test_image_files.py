"""Which files are images, and which of them are named like masks of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from odd_folders import write_classes

from dtn_det.cli.main import main
from dtn_det.corrupted_folders.reading import list_tree, open_tree
from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.image_files import mask_remarks
from dtn_det.datasets.folders.recognise import recognise

FILES = ("benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png", "2.png")


@pytest.mark.parametrize(
    ("mask", "plain"),
    [("1_mask.png", "1.jpg"), ("1-seg 2.PNG", "1.png"), ("a b masks.bmp", "a b.png"), ("1_GT.png", "1.png")],
)
def test_a_mask_is_told_by_the_image_beside_it(mask: str, plain: str) -> None:
    (remark,) = mask_remarks([f"cat/{mask}", f"cat/{plain}", "dog/1.png"], "set")
    assert (remark.kind, remark.count, remark.examples) == ("named_like_masks", 1, (f"cat/{mask}",))
    assert mask_remarks([f"cat/{mask}", f"dog/{plain}"], "set") == ()


def test_names_that_are_no_masks() -> None:
    assert (
        mask_remarks(["a/unmask.png", "a/un.png", "a/mask.png", "a/1_mask.png", "a/_mask.png", "a/.png"], "set") == ()
    )


@pytest.mark.usefixtures("in_process")
def test_every_reader_of_folders_tells_of_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean = write_classes(tmp_path / "clean", ("benign", "normal"), FILES)
    write_classes(tmp_path / "tree" / "fog" / "1", ("benign", "normal"), FILES)
    images, _ = list_tree(open_tree(recognise(tmp_path / "tree")), [("fog", 1)])
    for found in (list_images(clean), images):
        assert len(found.images) == 8
        (remark,) = [remark for remark in found.remarks if remark.kind == "named_like_masks"]
        assert remark.count == 4
    cell = ["--corruptions", "contrast", "--severities", "1", "--workers", "1", "--limit", "1", "--yes"]
    assert main(["corrupt", str(clean), str(tmp_path / "out"), *cell]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"note: {clean}: 4 images are named like masks of the images beside them and were taken as images: move them "
        "away if they are masks (benign/benign (1)_mask.png, benign/benign (1)_mask_1.png, normal/benign (1)_mask.png"
    ) in said
