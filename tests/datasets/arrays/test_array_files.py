"""Sets whose images are rows of a file: what is recognised, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from array_sets import LABELS, clean_images, write_batches, write_cifar_c, write_parquet

from dtn_det.datasets.arrays.corrupted import open_arrays
from dtn_det.datasets.arrays.labels import label_map
from dtn_det.datasets.arrays.rows import open_rows
from dtn_det.datasets.arrays.twins import match_rows
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.datasets.sets import list_set
from dtn_det.errors import BadImageError


def resave(root: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(root / f"{name}.npy", change(np.load(root / f"{name}.npy")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "labels.npy").unlink(), r"expected labels\.npy in .*, got none: fetch it"),
        (lambda root: np.save(root / "labels.npy", LABELS), r"got 10 for 50 rows: save numpy\.tile\(labels, 5\)"),
        (
            lambda root: np.save(root / "labels.npy", np.tile(LABELS, 4)),
            r"expected 40 rows in .*fog\.npy, one for each label in labels\.npy, got 50",
        ),
        (
            lambda root: resave(root, "fog", lambda rows: rows[:40]),
            r"expected 50 rows in .*fog\.npy, .*, got 40, which is 4 severities of 10: fetch fog\.npy and labels\.npy",
        ),
        (
            lambda root: resave(root, "labels", lambda values: np.roll(values, 1) * (np.arange(50) > 12)),
            r"expected the labels of the images five times in .*labels\.npy, got 2 for row 3 of severity 2 and 0 at",
        ),
        (
            lambda root: resave(root, "fog", lambda rows: rows.transpose(0, 3, 1, 2)),
            r"fog\.npy, .*got uint8 of shape 50 x 3 x 32 x 32, with the channels first: save array\.transpose",
        ),
        (
            lambda root: resave(root, "fog", lambda rows: rows.astype(np.float32) / 255),
            r"fog\.npy, .*got float32 of shape 50 x 32 x 32 x 3: save values from 0 to 255 as uint8",
        ),
        (
            lambda root: resave(root, "fog", np.asfortranarray),
            r"fog\.npy, .* in Fortran's order: save numpy\.ascontiguousarray",
        ),
        (
            lambda root: resave(root, "fog", lambda rows: rows[:, :16, :16].copy()),
            r"expected images of 16 x 16 in .*contrast\.npy as in fog\.npy, got .* 50 x 32 x 32 x 3: move",
        ),
        (
            lambda root: (root / "fog.npy").write_bytes((root / "fog.npy").read_bytes()[:-1]),
            r"expected 153,728 bytes in .*fog\.npy .*, got 153,727: fetch the file again",
        ),
        (lambda root: (root / "fog.npy").write_bytes(b"nonsense"), r"expected an array of NumPy in .*fog\.npy, got"),
        (
            lambda root: np.save(root / "fog.npy", np.array([{}], dtype=object), allow_pickle=True),
            r"expected an array of numbers in .*fog\.npy, got Python objects",
        ),
        (
            lambda root: np.save(root / "labels.npy", np.tile(LABELS, 5) / 2),
            r"expected labels in .*labels\.npy, one whole number for each image, got float64",
        ),
        (
            lambda root: np.save(root / "ripple.npy", np.load(root / "fog.npy")),
            r"expected corruptions of one benchmark in .*, got contrast of ImageNet-C and ripple of CIFAR-10-C-bar: ",
        ),
    ],
    ids=[
        *("no labels", "labels once", "labels of four", "a severity short", "labels of another set", "channels first"),
        *("floats", "fortran", "another size", "cut off", "no array", "objects", "labels of floats", "two sets"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    root = write_cifar_c(tmp_path / "c")
    change(root)
    with pytest.raises(ValueError, match=message) as caught:
        open_arrays(root)
    assert "\n" not in str(caught.value)


def test_a_corruption_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = write_cifar_c(tmp_path / "c")
    with pytest.raises(ValueError, match=r"expected snow\.npy in .*, got contrast\.npy, fog\.npy: fetch snow, frost"):
        open_arrays(root, ["fog", "frost", "snow"])
    assert open_arrays(root, ["fog"]).corruptions == ("fog",)


def test_names_of_c_bar_choose_its_corruptions(tmp_path: Path) -> None:
    arrays = open_arrays(write_cifar_c(tmp_path / "c", ("sparkles", "blue_noise_sample")))
    assert (arrays.dataset, arrays.catalog.profile) == ("CIFAR-10-C-bar", "cifar-c-bar")
    assert arrays.corruptions == ("blue_noise_sample", "sparkles")


class TestClasses:
    def test_a_hundred_balanced_labels_are_cifar_100(self, tmp_path: Path) -> None:
        arrays = open_arrays(write_cifar_c(tmp_path / "c", ("fog",), np.arange(100, dtype=np.uint8)))
        assert arrays.dataset == "CIFAR-100-C"
        assert arrays.list_images((), None, 0).num_classes == 100

    def test_labels_that_are_not_balanced_are_not_called_cifar(self, tmp_path: Path) -> None:
        arrays = open_arrays(write_cifar_c(tmp_path / "c", ("fog",), np.array([*range(10), 0], np.uint8)))
        assert arrays.dataset == ""
        assert arrays.list_images((), None, 0).labels.names == tuple(map(str, range(10)))

    def test_classes_without_images_are_told_for_cifar_and_refused_elsewhere(self) -> None:
        found = label_map(np.array([0, 4]), 32, Path("labels.npy"))
        assert found.map.num_classes == 10
        assert "those of CIFAR-10, though only 2 have images" in found.remarks[0].sentence()
        with pytest.raises(ValueError, match=r"every class from 0 to 4 in labels\.npy, got none of 1"):
            label_map(np.array([0, 4]), 64, Path("labels.npy"))

    def test_labels_from_one_are_refused(self) -> None:
        """SVHN has 10 for the digit 0, and other sets begin to count at 1."""
        with pytest.raises(ValueError, match=r"labels from 0 on in labels\.npy, got 1 to 10 and no 0: subtract 1"):
            label_map(np.array([10, *range(1, 11)]), 32, Path("labels.npy"))
        assert label_map(np.array([10, *range(1, 11)]), 32, Path("labels.npy"), given=11).map.num_classes == 11

    def test_a_label_beyond_the_named_classes_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"labels from 0 to 1 in labels\.npy, whose set has 2 classes, got 4"):
            label_map(np.array([0, 4]), 32, Path("labels.npy"), ("ant", "bee"))


class TestCleanSets:
    def test_batches_have_the_names_of_the_classes_and_leave_training_images_out(self, tmp_path: Path) -> None:
        images = list_set(write_batches(tmp_path / "b"))
        assert images.labels.names[:2] == ("airplane", "automobile")
        assert [remark.kind for remark in images.remarks] == ["split"]
        assert [image.row for image in images.images] == list(range(10))

    def test_a_batch_that_would_run_code_is_refused(self, tmp_path: Path) -> None:
        root = write_batches(tmp_path / "b")
        (root / "test_batch").write_bytes(pickle.dumps({b"data": print, b"labels": [1]}, protocol=2))
        with pytest.raises(ValueError, match=r"a batch of CIFAR in .*test_batch, got UnpicklingError: .*print"):
            list_set(root)

    @pytest.mark.parametrize(("column", "label"), [("img", "fine_label"), ("image", "label")])
    def test_columns_of_a_parquet_file(self, tmp_path: Path, column: str, label: str) -> None:
        images = list_set(write_parquet(tmp_path / "test.parquet", column, label))
        assert [image.label for image in images.images] == list(range(10))

    def test_a_row_that_has_only_the_path_of_an_image_says_so(self, tmp_path: Path) -> None:
        table = pyarrow.table({"image": [{"bytes": None, "path": "/data/0.png"}], "label": [0]})
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(
            BadImageError, match=r"row 0 has the path of an image, /data/0\.png, but not its bytes: write"
        ):
            open_rows(str(tmp_path / "a.parquet")).row(0)

    def test_labels_that_are_not_published_say_so(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"got no label but -1, as in splits whose labels are not published: name"):
            list_set(write_parquet(tmp_path / "test.parquet", labels=[-1] * 3))
        with pytest.raises(ValueError, match=r"a label in each row of .*, got none in 2 of 3 rows of the column label"):
            list_set(write_parquet(tmp_path / "test.parquet", labels=[1, None, None]))

    def test_a_parquet_file_without_images_is_refused(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "test.parquet", "text")
        with pytest.raises(ValueError, match=r"one column out of image, img in .*test\.parquet, got text, label"):
            list_set(path)

    def test_parquet_files_of_two_splits_are_refused(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "train-0.parquet")
        write_parquet(tmp_path / "test-0.parquet")
        with pytest.raises(ValueError, match=r"expected the Parquet files of one split in .*, got test, train: name"):
            list_set(tmp_path)

    def test_three_arrays_are_no_pair(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            np.save(tmp_path / f"{name}.npy", clean_images())
        np.save(tmp_path / "y.npy", LABELS)
        assert recognise(tmp_path).kind == "arrays"
        with pytest.raises(ValueError, match=r"got NumPy arrays \(3 arrays such as a\.npy\) in .*: name a folder with"):
            list_set(tmp_path)

    def test_another_number_of_labels_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", clean_images())
        np.save(tmp_path / "y.npy", LABELS[:9])
        with pytest.raises(ValueError, match=r"a label in .*y\.npy for each of the 10 images in x\.npy, got 9"):
            list_set(tmp_path)


class TestTwins:
    def test_a_clean_set_of_another_order_is_refused(self, tmp_path: Path) -> None:
        arrays = open_arrays(write_cifar_c(tmp_path / "c", ("fog",)))
        (tmp_path / "clean").mkdir()
        np.save(tmp_path / "clean" / "x.npy", clean_images())
        np.save(tmp_path / "clean" / "y.npy", LABELS[::-1])
        with pytest.raises(ValueError, match=r"class 9 for 00000 and class 0 in row 0 of labels\.npy: name the"):
            match_rows(arrays.list_images((), None, 0), arrays, list_set(tmp_path / "clean"), tmp_path)

    def test_a_clean_set_of_another_size_is_refused(self, tmp_path: Path) -> None:
        arrays = open_arrays(write_cifar_c(tmp_path / "c", ("fog",)))
        clean = list_set(write_parquet(tmp_path / "x.parquet", labels=[*range(10), 0]))
        with pytest.raises(ValueError, match=r"the 10 clean images of .*, got 11: name the set that the arrays"):
            match_rows(arrays.list_images((), None, 0), arrays, clean, tmp_path)
