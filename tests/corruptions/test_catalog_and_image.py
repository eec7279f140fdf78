"""Names of corruptions, and images from and to files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tree_files import load, picture, save

from dtn_det.corrupted_folders.worker import encode
from dtn_det.corruptions import ALL, BENCHMARK, GROUPS
from dtn_det.corruptions.catalog import select_corruptions, select_severities
from dtn_det.corruptions.image import read_image, resize_and_crop, to_rgb
from dtn_det.errors import BadImageError


class TestSelection:
    def test_groups_and_names(self):
        assert select_corruptions(["all"]) == ALL
        assert select_corruptions(["fog", "extra", "fog", "noise"]) == (*GROUPS["noise"], "fog", *GROUPS["extra"])
        assert select_corruptions(["benchmark"]) == BENCHMARK
        assert select_severities([3, 1, 3]) == (1, 3)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["fgo"], "got 'fgo'; did you mean 'fog'"),
            (["zzz"], "got 'zzz'$"),
            ([], "corruption, got none"),
        ],
    )
    def test_other_words_are_refused(self, words, message):
        with pytest.raises(ValueError, match=message):
            select_corruptions(words)

    @pytest.mark.parametrize(("severities", "message"), [([0], "got 0"), ([1, 6], "got 6"), ([], "got none")])
    def test_other_severities_are_refused(self, severities, message):
        with pytest.raises(ValueError, match=message):
            select_severities(severities)


class TestReading:
    def test_modes_become_rgb(self, tmp_path):
        image = Image.fromarray(picture(1))
        for mode, suffix in [("L", ".jpg"), ("CMYK", ".jpg"), ("P", ".png"), ("RGBA", ".png"), ("1", ".png")]:
            path = tmp_path / f"{mode}{suffix}"
            image.convert(mode).save(path)
            out = read_image(path, upright=True)
            assert (out.mode, out.size) == ("RGB", (64, 48))

    def test_orientation_is_followed_only_where_it_is_wanted(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(picture(1)).save(tmp_path / "a.jpg", exif=exif)
        assert read_image(tmp_path / "a.jpg", upright=False).size == (64, 48)
        assert read_image(tmp_path / "a.jpg", upright=True).size == (48, 64)

    def test_pixels_are_those_of_opencv(self, tmp_path):
        """MMDetection reads with it."""
        cv2 = pytest.importorskip("cv2")
        path = save(tmp_path / "a.jpg", picture(1, 101, 67))
        np.testing.assert_array_equal(np.array(read_image(path, upright=True)), cv2.imread(str(path))[..., ::-1])

    def test_cmyk_of_jpeg_files_is_read_as_by_opencv_or_as_by_pillow(self, tmp_path):
        """ImageNet has such files. Readers of upright images agree with MMDetection, the others with torchvision."""
        cv2 = pytest.importorskip("cv2")
        inks = np.random.default_rng(0).integers(0, 256, (48, 64, 4), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6
        path = tmp_path / "a.jpg"
        Image.fromarray(inks, "CMYK").save(path, quality=95, exif=exif)
        opencv = cv2.imread(str(path))[..., ::-1]
        with Image.open(path) as file:
            pillow = np.array(file.convert("RGB"))
        np.testing.assert_array_equal(np.array(read_image(path, upright=True)), opencv)
        np.testing.assert_array_equal(np.array(read_image(path, upright=False)), pillow)
        assert opencv.shape == (64, 48, 3)
        difference = np.abs(np.rot90(pillow, -1).astype(int) - opencv)
        assert (difference.max(), round(float(difference.mean()), 1)) == (2, 0.7)

    def test_deep_colours_are_refused(self, tmp_path):
        """Pillow would drop their lower bits without a word."""
        cv2 = pytest.importorskip("cv2")
        image = np.random.default_rng(0).integers(0, 65536, (40, 40, 4), dtype=np.uint16)
        for suffix in (".png", ".tif"):
            for channels in (1, 3, 4):
                path = tmp_path / f"{channels}{suffix}"
                cv2.imwrite(str(path), image[:, :, 0] if channels == 1 else image[:, :, :channels])
                with pytest.raises(
                    BadImageError,
                    match=r"expected 8 bits a channel, got .*16.*: convert it by .* by 257",
                ):
                    read_image(path, upright=True)
        with pytest.raises(BadImageError, match=r"expected 8 bits a channel, got mode F: convert it by .* by 257"):
            to_rgb(Image.fromarray(np.zeros((40, 40), np.float32)))

    @pytest.mark.filterwarnings("error")
    def test_transparent_palettes_are_read_in_silence(self, tmp_path):
        image = Image.fromarray(picture(1)).convert("P")
        image.save(tmp_path / "a.png", transparency=bytes(range(256)))
        expected = np.array(image.convert("RGB"))
        np.testing.assert_array_equal(np.array(read_image(tmp_path / "a.png", upright=True)), expected)

    def test_bad_files_say_why(self, tmp_path):
        good = save(tmp_path / "good.jpg", picture(1, 200, 200)).read_bytes()
        (tmp_path / "cut.jpg").write_bytes(good[: len(good) // 2])
        (tmp_path / "text.jpg").write_text("no image")
        (tmp_path / "empty.png").write_bytes(b"")
        save(tmp_path / "small.png", picture(1, 31, 64))
        Image.fromarray(np.zeros((40, 40), np.uint16)).save(tmp_path / "deep.png")
        (tmp_path / "folder.png").mkdir()
        for name, reason in {
            "cut.jpg": "cannot be read .*truncated",
            "text.jpg": "not an image",
            "empty.png": "not an image",
            "small.png": "expected at least 32 x 32 pixels, got 64 x 31",
            "deep.png": "expected 8 bits a channel, got mode I;16",
            "none.png": "there is no such file",
            "folder.png": "expected a regular file, got a folder",
        }.items():
            with pytest.raises(BadImageError, match=reason):
                read_image(tmp_path / name, upright=True)


class TestCrop:
    @pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 334), (227, 227), (256, 1000), (60, 41)])
    def test_it_is_that_of_torchvision(self, size):
        transforms = pytest.importorskip("torchvision.transforms")
        image = Image.fromarray(picture(2, size[1], size[0]))
        expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(image)
        np.testing.assert_array_equal(np.array(resize_and_crop(image)), np.array(expected))

    def test_what_is_224_already_is_left_alone(self):
        image = Image.fromarray(picture(2, 224, 224))
        assert resize_and_crop(image) is image


class TestEncoding:
    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif", ".TIFF"])
    def test_lossless(self, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encode(picture(3), suffix))
        np.testing.assert_array_equal(load(path), picture(3))

    def test_fine_jpeg_of_the_noisiest_image(self, tmp_path):
        image = np.random.default_rng(0).integers(0, 2, (300, 300, 3), dtype=np.uint8) * 255
        (tmp_path / "a.jpg").write_bytes(encode(image, ".jpg"))
        assert np.abs(load(tmp_path / "a.jpg").astype(int) - image).mean() < 3
        (tmp_path / "a.jpg").write_bytes(encode(image, ".jpg", 85))
        assert load(tmp_path / "a.jpg").shape == image.shape

    def test_other_suffixes_are_refused(self):
        with pytest.raises(ValueError, match=r"expected a file name that ends in .*, got '.gif'"):
            encode(picture(3), ".gif")
