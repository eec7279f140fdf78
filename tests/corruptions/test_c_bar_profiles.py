"""The profiles of ImageNet-C-bar and CIFAR-10-C-bar: names, rules and refusals, and the commands that take them."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import textured
from PIL import Image
from tree_files import imagenet_folder, load, picture, save

from dtn_det.cli.main import main
from dtn_det.corrupted_folders.manifest import read_manifest
from dtn_det.corrupted_folders.plan import plan_tree
from dtn_det.corruptions import ALL, PROFILES, Corrupt, Corruptor, corrupt, group_of
from dtn_det.corruptions.catalog import (
    CATALOGS,
    CIFAR_C_BAR_CATALOG,
    IMAGENET_C_BAR_CATALOG,
    select_corruptions,
)
from dtn_det.corruptions.image import resize_and_crop
from dtn_det.corruptions.profiles import check_swept, size_remark
from dtn_det.errors import InputError

PROFILES_OF_SQUARES = ("imagenet-c-bar", "cifar-c-bar")
CASES = [(profile, name) for profile in PROFILES_OF_SQUARES for name in PROFILES[profile].catalog.names]
IMAGE = textured(40, 40)


class TestNames:
    def test_every_corruption_is_in_one_group_and_has_five_magnitudes(self) -> None:
        for catalog in CATALOGS:
            assert sorted(name for names in catalog.groups.values() for name in names) == sorted(catalog.names)
        for catalog in (IMAGENET_C_BAR_CATALOG, CIFAR_C_BAR_CATALOG):
            assert len(catalog.names) == 10
            assert catalog.benchmark == catalog.names
            table = PROFILES[catalog.profile].table
            assert tuple(table) == catalog.names
            assert all(len(rows) == 5 and sorted(rows) == list(rows) for rows in table.values())
        assert group_of("ripple", CIFAR_C_BAR_CATALOG) == "distortion"

    def test_words_stand_for_the_corruptions_of_the_profile(self) -> None:
        assert select_corruptions(["all"], IMAGENET_C_BAR_CATALOG) == IMAGENET_C_BAR_CATALOG.names
        assert select_corruptions(["lines", "noise"], CIFAR_C_BAR_CATALOG) == (
            "blue_noise_sample", "brownish_noise", "lines",
        )  # fmt: skip
        with pytest.raises(InputError, match=r"out of caustic_refraction, .*, got 'weather'$"):
            select_corruptions(["weather"], IMAGENET_C_BAR_CATALOG)
        with pytest.raises(InputError, match=r"got 'sparkle'; did you mean 'sparkles'\?"):
            select_corruptions(["sparkle"], IMAGENET_C_BAR_CATALOG)

    @pytest.mark.parametrize(
        ("profile", "name", "hint"),
        [
            ("imagenet-c-bar", "fog", "'fog', a corruption of ImageNet-C: name the profile imagenet-c"),
            ("imagenet-c-bar", "ripple", "'ripple', a corruption of CIFAR-10-C-bar: name the profile cifar-c-bar"),
            ("cifar-c-bar", "perlin_noise", "of ImageNet-C-bar: name the profile imagenet-c-bar"),
            (
                "coco-c",
                "sparkles",
                "'sparkles', a corruption of ImageNet-C-bar and CIFAR-10-C-bar: name the profile imagenet-c-bar or "
                "cifar-c-bar",
            ),
        ],
    )
    def test_names_of_another_profile_are_refused_in_one_sentence(self, profile: str, name: str, hint: str) -> None:
        catalog = PROFILES[profile].catalog
        message = rf"expected a corruption out of {', '.join(catalog.names)}, got .*{hint}$"
        with pytest.raises(InputError, match=message):
            corrupt(IMAGE, name, 3, profile=profile)
        with pytest.raises(InputError, match=message):
            Corrupt(name, 3, Corruptor(profile))
        with pytest.raises(InputError, match=f"expected corruptions out of .*{hint}$"):
            select_corruptions([name], catalog)


class TestPixels:
    @pytest.mark.parametrize(("profile", "name"), CASES)
    def test_any_side_gives_an_image_of_that_side_and_the_same_one_again(self, profile: str, name: str) -> None:
        for side in (32, 33, 57, 64):
            image = textured(side, side)
            before = image.copy()
            for severity in (1, 5):
                first = corrupt(image, name, severity, key="a", profile=profile, jpeg=False)
                assert (first.shape, first.dtype) == (image.shape, np.uint8)
                assert np.array_equal(first, corrupt(image, name, severity, key="a", profile=profile, jpeg=False))
                assert not np.shares_memory(first, image)
            assert np.array_equal(image, before)

    @pytest.mark.parametrize(("profile", "name"), CASES)
    def test_randomness_follows_seed_and_key(self, profile: str, name: str) -> None:
        image = textured(64, 64)
        keys = [(seed, key) for seed in (0, 1) for key in ("a", "b", "c", None)]
        different = {
            corrupt(image, name, 5, seed=seed, key=key, profile=profile, jpeg=False).tobytes() for seed, key in keys
        }
        # A permutation of three channels can be met twice, and a turning camera always turns alike.
        least = {"transverse_chromatic_abberation": 3, "circular_motion_blur": 1}.get(name, len(keys))
        assert len(different) >= least
        assert name != "circular_motion_blur" or len(different) == 1

    def test_threads_do_not_matter(self) -> None:
        tasks = [(profile, name, severity) for profile, name in CASES for severity in (1, 5)]

        def make(task: tuple[str, str, int]) -> bytes:
            profile, name, severity = task
            return corrupt(textured(48, 48), name, severity, key=7, profile=profile).tobytes()

        alone = [make(task) for task in tasks]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(make, tasks)) == alone

    def test_published_images_of_imagenet_went_through_jpeg_and_those_of_cifar_did_not(self) -> None:
        plain = corrupt(IMAGE, "sparkles", 3, key=0, profile="imagenet-c-bar", jpeg=False)
        file = io.BytesIO()
        Image.fromarray(plain).save(file, "JPEG", quality=85, optimize=True)
        assert np.array_equal(corrupt(IMAGE, "sparkles", 3, key=0, profile="imagenet-c-bar"), load(file))
        assert Corruptor("cifar-c-bar").jpeg_quality is None


class TestRules:
    @pytest.mark.parametrize("profile", PROFILES_OF_SQUARES)
    def test_images_that_are_no_squares_are_refused_in_one_sentence(self, profile: str) -> None:
        with pytest.raises(
            InputError, match=rf"expected a square image, .* of {profile} are defined, got 48 x 40: cut"
        ):
            corrupt(textured(40, 48), "sparkles", 1, profile=profile)
        with pytest.raises(InputError, match="at least 32 x 32 pixels"):
            corrupt(textured(31, 31), "sparkles", 1, profile=profile)

    def test_identities_have_no_frost(self) -> None:
        assert Corruptor("imagenet-c-bar").identity == "imagenet-c-bar jpeg85 rgb seed=0 engine=1"
        assert Corruptor("cifar-c-bar", 4).identity == "cifar-c-bar no-jpeg rgb seed=4 engine=1"
        for profile in PROFILES_OF_SQUARES:
            corruptor = Corruptor(profile, 3, channel_order="bgr")
            assert Corruptor.from_identity(corruptor.identity).identity == corruptor.identity

    def test_what_these_profiles_lack_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"expected no frost textures with the profile cifar-c-bar, .* got '.*'"):
            Corruptor("cifar-c-bar", frost_folder=tmp_path)
        with pytest.raises(
            InputError, match=r"expected profile 'coco-c' .* got 'imagenet-c-bar': use backend='dtn_det'"
        ):
            Corruptor("imagenet-c-bar", backend="imagecorruptions")

    def test_other_sizes_than_the_published_ones_are_told(self) -> None:
        assert size_remark("imagenet-c-bar", 224, 224) is None
        assert "cifar-c-bar were chosen for images of 32 x 32 pixels" in str(size_remark("cifar-c-bar", 64, 64))

    def test_detectors_are_not_evaluated_under_them(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        message = (
            "expected a profile out of imagenet-c, coco-c, cifar-c, tiny-imagenet-c, over whose corruptions mPC is "
            "defined, got 'imagenet-c-bar': `dtn-det mce` and `dtn-det corrupt` take the corruptions of ImageNet-C-bar"
        )
        with pytest.raises(InputError, match=message):
            check_swept("imagenet-c-bar")
        command = ["mpc", "config.py", "model.pth", "--store", str(tmp_path / "store"), "--profile", "imagenet-c-bar"]
        assert main(command) != 0
        assert message in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("in_process")
class TestCommand:
    def test_a_tree_of_imagenet_is_cropped_and_written_as_the_published_one(self, tmp_path: Path) -> None:
        root, tree = imagenet_folder(tmp_path / "val", 2), tmp_path / "tree"
        arguments = ["--profile", "imagenet-c-bar", "--severities", "2", "--corruptions", "light", "lines", "--yes"]
        assert main(["corrupt", str(root), str(tree), *arguments]) != 0
        assert main(["corrupt", str(root), str(tree), *arguments[:-2], "--yes", "--workers", "1"]) == 0
        manifest = read_manifest(tree)
        assert manifest is not None
        assert (manifest["cropped"], manifest["file_format"]) == (True, "jpeg")
        assert manifest["identity"] == "imagenet-c-bar jpeg85 rgb seed=0 engine=1"
        written = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*.JPEG"))
        key = "n01440760/ILSVRC2012_val_00000000.JPEG"
        assert written[0] == f"inverse_sparkles/2/{key}"
        assert len(written) == 2 * 2
        with Image.open(root / key) as image:
            clean = np.array(resize_and_crop(image.convert("RGB")))
        expected = Corruptor("imagenet-c-bar")(clean, "sparkles", 2, key)
        assert np.array_equal(load(tree / "sparkles" / "2" / key), expected)

    def test_names_of_another_profile_do_not_begin_a_tree(self, tmp_path: Path) -> None:
        with pytest.raises(
            InputError, match="got 'gaussian_noise', a corruption of ImageNet-C: name the profile imagenet-c"
        ):
            plan_tree(
                imagenet_folder(tmp_path / "val"), tmp_path / "tree", ALL, (1,),
                corruptor=lambda _: Corruptor("imagenet-c-bar"),
            )  # fmt: skip

    def test_folders_of_other_shapes_are_refused_before_and_single_images_listed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        what = ["--profile", "cifar-c-bar", "--corruptions", "lines", "--severities", "1", "--workers", "1", "--yes"]
        save(tmp_path / "wide" / "a.png", picture(1))
        assert main(["corrupt", str(tmp_path / "wide"), str(tmp_path / "tree"), *what]) != 0
        assert "expected a square image, for which alone" in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "tree").exists()
        save(tmp_path / "some" / "a.png", picture(1, 32, 32))
        save(tmp_path / "some" / "b.png", picture(2))
        assert main(["corrupt", str(tmp_path / "some"), str(tmp_path / "tree"), *what]) == 1
        told = " ".join(capsys.readouterr().out.split())
        assert "b.png: expected a square image" in told
        found = load(tmp_path / "tree" / "lines" / "1" / "a.png")
        assert np.array_equal(found, Corruptor("cifar-c-bar")(picture(1, 32, 32), "lines", 1, "a.png"))

    def test_a_grid_has_a_row_for_each_corruption_of_the_profile(self, tmp_path: Path) -> None:
        source = save(tmp_path / "a.png", picture(1, 32, 32))
        arguments = ["--grid", str(tmp_path / "grid.png"), "--profile", "cifar-c-bar"]
        assert main(["corrupt", str(source), *arguments]) == 0
        # Eleven rows, with that of the clean image, in two blocks.
        assert load(tmp_path / "grid.png").shape[0] > 6 * 32
        assert main(["corrupt", str(save(tmp_path / "b.png", picture(1))), *arguments]) != 0
        assert main(["corrupt", str(tmp_path / "b.png"), *arguments, "--resize"]) == 0
