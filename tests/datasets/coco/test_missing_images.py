"""Images that an annotation file names and that are not there: the advice is what finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtn_det.datasets.coco.names import check_images, is_elsewhere
from dtn_det.errors import InputError

OPTION = "test_dataloader.dataset.data_prefix.img"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images/1.jpg").touch()
    return tmp_path


def fault(root: Path, name: str) -> str:
    with pytest.raises(InputError) as caught:
        check_images(root / "annotations/a.json", [str(root / "images" / name)], [name], OPTION)
    return str(caught.value)


def test_images_that_are_there(root: Path) -> None:
    check_images(root / "annotations/a.json", [str(root / "images/1.jpg"), "s3://bucket/2.jpg"], ["1.jpg", "2.jpg"])


def test_names_with_the_folder_that_the_config_names_too(root: Path) -> None:
    text = fault(root, "images/1.jpg")
    assert "got 1 of 1 missing" in text
    assert text.endswith(f"{root}/images/1.jpg is there, so name its folder with --cfg-options {OPTION}={root}/")


def test_names_that_differ_in_case(root: Path) -> None:
    assert fault(root, "1.JPG").endswith("there is 1.jpg, so write the names as the files have them, as file_name")


def test_urls(root: Path) -> None:
    text = fault(root, "https://example.org/1.jpg")
    assert text.endswith(
        "the file names URLs ('https://example.org/1.jpg'); fetch the images and write the names of their files as "
        "file_name"
    )


def test_images_that_are_nowhere(root: Path) -> None:
    assert fault(root, "2.jpg").endswith("2.jpg: fetch them, or name the right folder with --data-root")


def test_a_url_within_a_path_is_no_url() -> None:
    assert is_elsewhere("petrel://bucket/1.jpg")
    assert not is_elsewhere("/data/http://x/1.jpg")
