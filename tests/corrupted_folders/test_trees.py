"""Writing of corrupted trees, within this process but for a few."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tree_files import coco_folder, imagenet_folder, load, picture, plain_folder, tree_hash

from dtn_det.corrupted_folders import writing
from dtn_det.corrupted_folders.layouts import choose
from dtn_det.corrupted_folders.manifest import read_manifest
from dtn_det.corrupted_folders.plan import plan_tree
from dtn_det.corrupted_folders.worker import Job, write_image
from dtn_det.corrupted_folders.writing import check_space, count_present, estimate, remove_temporary_files, write_tree
from dtn_det.corruptions import Corruptor
from dtn_det.corruptions.image import resize_and_crop

CONSOLE = Console(file=open(os.devnull, "w"))  # noqa: SIM115


def write(tree, workers=1):
    return write_tree(tree, workers, CONSOLE, lambda estimate: True)


def write_here(tree):
    """Write a tree within this process."""
    outcomes = [write_image(tree.job, image) for image in choose(tree.source, tree.limit, tree.corruptor.seed)]
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)


class TestPixels:
    """What is on the disk is what corruption on the fly gives."""

    def test_imagenet_files_are_the_jpeg_step(self, tmp_path):
        root = imagenet_folder(tmp_path / "a")
        tree = plan_tree(root, tmp_path / "b", ["gaussian_noise", "fog"], [2])
        assert (tree.corruptor.profile, tree.cropped, tree.file_format) == ("imagenet-c", True, "jpeg")
        write_here(tree)
        for image in tree.source.images:
            clean = np.array(resize_and_crop(Image.fromarray(load(image.path))))
            for name in ("gaussian_noise", "fog"):
                path = tmp_path / "b" / name / "2" / image.key
                np.testing.assert_array_equal(load(path), Corruptor("imagenet-c", jpeg=True)(clean, name, 2, image.key))
        with Image.open(path) as file:
            assert file.size == (224, 224)
            # Quality 85 and chroma of half the resolution, as in the published files.
            assert file.quantization[0][0] == 5
            assert [component[1:3] for component in file.layer] == [(2, 2), (1, 1), (1, 1)]

    def test_coco_files_are_what_mmdetection_would_see(self, tmp_path):
        mmcv = pytest.importorskip("mmcv.transforms")
        from dtn_det.corruptions.transforms import ImageCorruption

        tree = plan_tree(coco_folder(tmp_path / "a"), tmp_path / "b", ["gaussian_noise", "jpeg_compression"], [3])
        assert (tree.corruptor.profile, tree.cropped, tree.file_format) == ("coco-c", False, "source")
        write_here(tree)
        for image in tree.source.images:
            for name in ("gaussian_noise", "jpeg_compression"):
                results = mmcv.LoadImageFromFile()({"img_path": str(image.path), "img_id": image.key})
                seen = ImageCorruption(name, 3)(results)["img"]
                np.testing.assert_array_equal(load(tmp_path / "b" / name / "3" / image.target), seen[..., ::-1])

    def test_imagenet_files_are_what_mmpretrain_would_see(self, tmp_path):
        mmcv = pytest.importorskip("mmcv.transforms")
        from dtn_det.corruptions.transforms import ImageCorruption

        settings = {"crop": False, "file_format": "png"}
        tree = plan_tree(imagenet_folder(tmp_path / "a"), tmp_path / "b", ["snow"], [3], **settings)
        write_here(tree)
        for image in tree.source.images:
            results = mmcv.LoadImageFromFile()({"img_path": str(image.path)})
            seen = ImageCorruption("snow", 3, "imagenet-c")(results)["img"]
            np.testing.assert_array_equal(load(tmp_path / "b/snow/3" / image.target), seen[..., ::-1])

    @pytest.mark.parametrize("jpeg", [False, True])
    def test_png_holds_what_the_corruptor_gives(self, tmp_path, jpeg):
        tree = plan_tree(
            plain_folder(tmp_path / "a"),
            tmp_path / "b",
            ["shot_noise"],
            [1],
            corruptor=lambda profile: Corruptor(profile, jpeg=jpeg),
        )
        write_here(tree)
        expected = Corruptor("coco-c", jpeg=jpeg)(picture(1), "shot_noise", 1, "deep/er/1.png")
        np.testing.assert_array_equal(load(tmp_path / "b/shot_noise/1/deep/er/1.png"), expected)

    def test_jpeg_without_that_step_is_close(self, tmp_path):
        root = coco_folder(tmp_path / "a", suffix=".jpg")
        tree = plan_tree(root, tmp_path / "b", ["gaussian_noise"], [5])
        write_here(tree)
        image = tree.source.images[0]
        expected = Corruptor("coco-c")(load(image.path), "gaussian_noise", 5, image.key)
        written = load(tmp_path / "b/gaussian_noise/5" / image.target)
        assert 0 < np.abs(written.astype(int) - expected).mean() < 3


@pytest.fixture
def tree(tmp_path):
    return plan_tree(plain_folder(tmp_path / "a"), tmp_path / "b", ["contrast", "pixelate"], [1, 5])


class TestWriting:
    def test_everything_is_there_and_nothing_else(self, tree):
        assert write(tree, workers=2) == ()
        written = sorted(str(path.relative_to(tree.destination)) for path in tree.destination.rglob("*.*"))
        images = ("0.png", "2.png", "deep/er/1.png")
        cells = [f"{name}/{severity}" for name in ("contrast", "pixelate") for severity in (1, 5)]
        assert written == sorted(["corruptions.json", *(f"{cell}/{image}" for cell in cells for image in images)])
        assert read_manifest(tree.destination) == {
            "version": 1,
            "identity": Corruptor("coco-c").identity,
            "layout": "plain",
            "cropped": False,
            "file_format": "source",
            "num_images": 3,
            "images": tree.source.digest,
        }

    @pytest.mark.usefixtures("in_process")
    def test_what_is_there_is_left_alone(self, tree):
        write(tree)
        before = {path: path.stat().st_mtime_ns for path in tree.destination.rglob("*.png")}
        lost = tree.destination / "pixelate/5/0.png"
        content = lost.read_bytes()
        lost.unlink()
        assert write(replace(tree, cells=(*tree.cells, ("saturate", 2)))) == ()
        assert lost.read_bytes() == content
        assert (tree.destination / "saturate/2/0.png").exists()
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items() if path != lost)

    @pytest.mark.usefixtures("in_process")
    def test_leftovers_of_a_kill_are_deleted(self, tree):
        write(tree)
        expected = tree_hash(tree.destination)
        (tree.destination / "contrast/1/.0.png.4711.tmp").write_bytes(b"half")
        (tree.destination / ".corruptions.json.4711.tmp").write_bytes(b"half")
        remove_temporary_files(tree.destination)
        assert count_present(tree, tree.source.images) == 12
        assert tree_hash(tree.destination) == expected

    @pytest.mark.usefixtures("in_process")
    def test_other_settings_are_refused_and_named(self, tree):
        write(tree)
        expected = tree_hash(tree.destination)
        for change, message in [
            ({"corruptor": Corruptor("coco-c", seed=1)}, "identity was '.*seed=0.*', is '.*seed=1"),
            ({"cropped": True}, "cropped was False, is True"),
            ({"source": replace(tree.source, images=tree.source.images[1:])}, "num_images was 3, is 2; images was '"),
        ]:
            with pytest.raises(ValueError, match=message):
                write(replace(tree, **change))
        assert tree_hash(tree.destination) == expected

    def test_a_folder_with_other_files_is_refused(self, tree):
        tree.destination.mkdir()
        (tree.destination / "thesis.tex").write_text("years of work")
        with pytest.raises(ValueError, match=r"expected DST to be empty or a corrupted tree, got .*'thesis.tex'"):
            write(tree)
        assert sorted(path.name for path in tree.destination.iterdir()) == ["thesis.tex"]

    def test_declined_nothing_is_written(self, tree):
        asked = []
        assert write_tree(tree, 1, CONSOLE, lambda text: asked.append(text)) == ()
        assert asked[0].startswith("12 files to write, about ")
        assert list(tree.destination.iterdir()) == []

    @pytest.mark.usefixtures("in_process")
    def test_only_files_of_the_chosen_images_and_cells_count(self, tree):
        write(replace(tree, cells=(("contrast", 1),)))
        tree = replace(tree, cells=(("contrast", 1), ("pixelate", 1)), limit=2)
        asked = []
        write_tree(tree, 1000, CONSOLE, lambda text: asked.append(text))
        assert asked[0].startswith("2 files to write, about ")
        assert asked[0].endswith(" with 2 processes")

    @pytest.mark.usefixtures("in_process")
    @pytest.mark.parametrize("step", ["estimate", "write_images"])
    def test_an_interrupt_that_a_library_swallows_is_obeyed(self, tree, monkeypatch, step):
        original = getattr(writing, step)

        def swallow(*args):
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            return original(*args)

        monkeypatch.setattr(writing, step, swallow)
        with pytest.raises(KeyboardInterrupt):
            write(tree)
        assert len([*tree.destination.rglob("*.png")]) < 12

    def test_a_negative_number_of_workers_is_refused(self, tree):
        with pytest.raises(ValueError, match="expected 0 workers or more, got -1"):
            write(tree, workers=-1)

    def test_a_full_disk_is_one_message(self, tree, monkeypatch):
        def fail(*args):
            raise OSError(errno.ENOSPC, "No space left on device")
            yield

        monkeypatch.setattr(writing, "write_images", fail)
        with pytest.raises(OSError, match=r"expected to write to .*the disk is full.*the same command continues"):
            write(tree)

    def test_a_write_that_fails_is_no_fault_of_the_image(self, tree, monkeypatch):
        def fail(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="No space left"):
            write_image(tree.job, tree.source.images[0])
        assert not [path for path in tree.destination.rglob("*") if path.is_file()]

    def test_a_process_that_dies_is_reported(self, tree, monkeypatch):
        monkeypatch.setattr(type(tree), "job", property(lambda self: deadly_job(self)))
        with pytest.raises(RuntimeError, match=r"a worker process died .*fewer --workers"):
            write(tree, workers=2)

    def test_an_image_that_breaks_a_corruption_is_reported(self, tree):
        broken = replace(tree.job, corruptor=None)
        outcome = write_image(broken, tree.source.images[0])
        assert outcome.error.startswith("cannot be corrupted (AttributeError: ")
        assert estimate(broken, tree.source.images) is None

    def test_stopped_it_leaves_the_rest(self, tree):
        answers = iter([False, False, True])
        assert write_image(tree.job, tree.source.images[0], lambda: next(answers)).written == 2
        assert write_image(tree.job, tree.source.images[0]).written == 2


@dataclass(frozen=True)
class DeadlyJob(Job):
    """Takes its process down as a lack of memory does."""

    def read(self, image):
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(image)


def deadly_job(tree):
    return DeadlyJob(tree.destination, tree.corruptor, tree.cells, tree.cropped, False)


@pytest.mark.usefixtures("in_process")
class TestAnnotations:
    def test_each_cell_is_a_coco_folder(self, tmp_path):
        root = coco_folder(tmp_path / "a")
        tree = plan_tree(root, tmp_path / "b", ["contrast"], [1, 2])
        assert write(tree) == ()
        assert count_present(tree, tree.source.images) == 6
        tree.destination.rename(tmp_path / "c")  # the links move along
        for severity in (1, 2):
            path = tmp_path / f"c/contrast/{severity}/annotations/instances_val2017.json"
            assert path.is_symlink()
            assert path.read_bytes() == (root / "annotations/instances_val2017.json").read_bytes()
            for image in json.loads(path.read_text())["images"]:
                assert load(path.parents[1] / "val2017" / image["file_name"]).shape == (48, 64, 3)

    def test_where_there_are_no_links_they_are_copied(self, tmp_path, monkeypatch):
        def refuse(*args):
            raise OSError("not supported")

        monkeypatch.setattr(Path, "symlink_to", refuse)
        tree = plan_tree(coco_folder(tmp_path / "a"), tmp_path / "b", ["contrast"], [1])
        write(tree)
        copy = tree.destination / "contrast/1/annotations/instances_val2017.json"
        assert not copy.is_symlink()
        assert len(json.loads(copy.read_text())["images"]) == 3

    def test_they_follow_the_file_format(self, tmp_path):
        root = coco_folder(tmp_path / "a", suffix=".jpg")
        tree = plan_tree(root, tmp_path / "b", ["contrast"], [1], file_format="png")
        assert write(tree) == ()
        cell = tree.destination / "contrast/1"
        content = json.loads((cell / "annotations/instances_val2017.json").read_text())
        image = content["images"][2]
        assert image["file_name"] == "000000000002.png"
        expected = Corruptor("coco-c")(load(root / "val2017/000000000002.jpg"), "contrast", 1, image["id"])
        np.testing.assert_array_equal(load(cell / "val2017/000000000002.png"), expected)
        assert content["categories"] == [{"id": 1, "name": "thing"}]


class TestSize:
    def test_the_estimate_is_near_the_truth(self, tmp_path):
        root = plain_folder(tmp_path / "a", 6)
        tree = plan_tree(root, tmp_path / "b", ["gaussian_noise", "contrast"], [1, 5])
        cost = estimate(tree.job, tree.source.images)
        write_here(tree)
        block = os.statvfs(tmp_path).f_frsize
        sizes = [-(-path.stat().st_size // block) * block for path in tree.destination.rglob("*.png")]
        assert len(sizes) == 24
        assert cost.num_bytes == pytest.approx(np.mean(sizes), rel=0.2)
        assert cost.seconds > 0

    def test_too_little_space_is_refused(self, tmp_path):
        check_space(tmp_path / "not/yet/there", 1, 1)
        with pytest.raises(OSError, match=r"expected room for about 1,000,000,000.0 GB in .* free: free"):
            check_space(tmp_path, 1e18, 1)
        if os.statvfs(tmp_path).f_files:
            with pytest.raises(OSError, match=r"expected room for 1,000,000,000,000 files .* free inodes"):
                check_space(tmp_path, 1, 10**12)

    def test_a_tree_that_does_not_fit_leaves_nothing(self, tree, monkeypatch):
        monkeypatch.setattr(
            "dtn_det.corrupted_folders.writing.check_space", lambda *args: check_space(tree.destination, 1e18, 1)
        )
        with pytest.raises(OSError, match="expected room for"):
            write(tree)
        assert list(tree.destination.iterdir()) == []
