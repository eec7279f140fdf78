import hashlib
import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest

from dtn_det.corruptions import Corruptor
from dtn_det.corruptions.effects import frost_crystals
from dtn_det.corruptions.effects.frost import FILES, _procedural, texture_set
from dtn_det.corruptions.effects.frost_statistics import SHARES, TEXTURES, layout, quantiles, spectrum
from dtn_det.corruptions.stream import Stream


@pytest.fixture
def folder(shared_dir):
    return shared_dir / "data" / "imagenet_c_samples" / "frost"


@pytest.mark.parametrize("number", range(6))
def test_the_tables_are_those_of_the_originals(folder, number):
    texture, table = texture_set(folder).textures[number], TEXTURES[number]
    assert texture.shape == (*table.size, 3)
    for channel in range(3):
        np.testing.assert_allclose(quantiles(texture[:, :, channel]), table.quantiles[channel], atol=0.5)
    green = texture[:, :, 1]
    np.testing.assert_allclose(spectrum(green), table.spectrum, atol=0.06)
    np.testing.assert_allclose(layout(green), table.layout, atol=0.51)
    correlation = np.corrcoef(texture.reshape(-1, 3).T)
    np.testing.assert_allclose(correlation[1, [0, 2]], table.correlations, atol=6e-4)


@pytest.mark.parametrize("number", range(6))
def test_textures_that_ship_have_the_statistics_of_the_tables(number):
    texture, table = texture_set(None).textures[number], TEXTURES[number]
    assert texture.shape == (*table.size, 3)
    assert texture.dtype == np.uint8
    inner = slice(2, -2)
    for channel in range(3):
        np.testing.assert_allclose(quantiles(texture[:, :, channel])[inner], table.quantiles[channel][inner], atol=2.5)
    green = texture[:, :, 1].astype(float)
    # The lowest bands have a dozen frequencies each, the highest ones no energy to speak of.
    np.testing.assert_allclose(spectrum(green)[:4], table.spectrum[:4], atol=5)
    np.testing.assert_allclose(spectrum(green)[4:14], table.spectrum[4:14], atol=2)
    np.testing.assert_allclose(layout(green), table.layout, atol=0.1 * green.mean())
    correlation = np.corrcoef(texture.reshape(-1, 3).T)
    np.testing.assert_allclose(correlation[1, [0, 2]], table.correlations, atol=0.03)


@pytest.mark.parametrize("number", range(6))
def test_textures_that_ship_agree_with_the_originals(folder, number):
    ours = texture_set(None).textures[number].astype(float)
    theirs = texture_set(folder).textures[number].astype(float)
    assert ours.mean(axis=(0, 1)) == pytest.approx(theirs.mean(axis=(0, 1)), rel=0.01)
    assert ours.std(axis=(0, 1)) == pytest.approx(theirs.std(axis=(0, 1)), rel=0.03)


def test_textures_that_ship_show_edges_and_not_clouds():
    for texture, table in zip(texture_set(None).textures, TEXTURES, strict=True):
        green = texture[:, :, 1].astype(np.float32)
        # Random phases with the same spectrum make a cloud; its fine detail is normally distributed.
        detail = green - cv2.GaussianBlur(green, (0, 0), 2)
        kurtosis = np.mean(((detail - detail.mean()) / detail.std()) ** 4)
        assert kurtosis > 3.5, table.size
    assert (texture_set(None).textures[1] != texture_set(None).textures[2]).any()


def test_another_process_makes_the_same_textures():
    script = (
        "import hashlib; from dtn_det.corruptions.effects.frost import texture_set\n"
        "print(hashlib.sha256(b''.join(t.tobytes() for t in texture_set(None).textures)).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()[
        -1
    ]
    _procedural.cache_clear()
    here = hashlib.sha256(b"".join(t.tobytes() for t in texture_set(None).textures)).hexdigest()
    assert there == here


def test_textures_are_made_once_and_cannot_be_spoilt(folder):
    for textures in (texture_set(None), texture_set(folder)):
        assert len(textures.textures) == 6
        with pytest.raises(ValueError, match="read-only"):
            textures.textures[0][0, 0] = 0
    assert texture_set(None) is texture_set(None)
    assert texture_set(folder) is texture_set(str(folder))


def test_the_name_tells_which_textures(folder, tmp_path):
    assert texture_set(None).name == "procedural"
    assert texture_set(folder).name == "original:46f4864b"
    for name in FILES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert texture_set(tmp_path).name == "original:46f4864b"
    identity = Corruptor(frost_folder=folder).identity
    assert "frost=original:46f4864b" in identity
    assert Corruptor.from_identity(identity, folder).identity == identity
    with pytest.raises(ValueError, match="name the folder of the original frost textures"):
        Corruptor.from_identity(identity)
    other = tmp_path / "other"
    other.mkdir()
    for name in FILES:
        (other / name).write_bytes((folder / FILES[0]).read_bytes())
    assert texture_set(other).name not in ("original:46f4864b", "procedural")


def write_textures(folder):
    for name in FILES:
        assert cv2.imwrite(str(folder / name), np.full((40, 50, 3), 99, np.uint8))


def test_a_missing_texture_is_named(tmp_path):
    write_textures(tmp_path)
    (tmp_path / "frost4.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}.*found no frost4\.jpg"):
        texture_set(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"found no frost1\.png"):
        texture_set(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_an_unreadable_texture_is_named(tmp_path, content):
    write_textures(tmp_path)
    (tmp_path / "frost2.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"expected a picture in {tmp_path}/frost2\.png, got {len(content)} bytes"):
        texture_set(tmp_path)


def test_channels_are_red_green_blue(tmp_path):
    write_textures(tmp_path)
    cv2.imwrite(str(tmp_path / "frost1.png"), np.full((40, 50, 3), (255, 0, 10), np.uint8))  # blue, as OpenCV writes
    assert texture_set(tmp_path).textures[0][0, 0].tolist() == [10, 0, 255]


@pytest.mark.parametrize("size", [(33, 80), (120, 40)])
def test_drawings_fill_their_canvas(size):
    stream = Stream(0, "test", "frost", 0)
    drawings = [
        frost_crystals.needles(stream, size, 0.03, (8, 60), (1, 5)),
        frost_crystals.feathers(stream, size, 0.004, (10, 40), 3.0, 0.3, 3),
        frost_crystals.wrinkles(stream, size, 0.02, (8, 60)),
        frost_crystals.droplets(stream, size, 10),
        frost_crystals.clouds(stream, size, 9),
    ]
    for drawing in drawings:
        assert drawing.shape == size
        assert np.isfinite(drawing).all()
        for part in (drawing[:16, :16], drawing[-16:, -16:]):
            assert part.std() > 0.01


def test_a_stroke_lies_where_it_should():
    canvas = np.zeros((20, 30), np.float32)
    frost_crystals._paint(canvas, np.array([[5, 10, 24, 10, 1, 1, 0.8, 0, 1]], np.float32))
    assert canvas[10, 5:25] == pytest.approx(0.8)
    assert (canvas[[8, 12], 5:25] == 0).all()
    assert (canvas[:, :4] == 0).all()
    assert (canvas[:, 26:] == 0).all()


def test_shares_rise_from_none_to_all():
    assert SHARES[0] == 0
    assert SHARES[-1] == 1
    assert all(first < second for first, second in itertools.pairwise(SHARES))
