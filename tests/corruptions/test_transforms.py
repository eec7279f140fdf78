from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch.utils.data
from PIL import Image
from tree_files import picture

from dtn_det.corruptions import Corruptor
from dtn_det.corruptions.engine import Corrupt
from dtn_det.corruptions.stream import image_key

IMAGE = picture(1)
FULL = IMAGE.copy()
FULL[0, :2] = [[0], [255]]


class TestKey:
    @pytest.mark.parametrize(
        ("path", "root", "key"),
        [
            ("/a/val/n01440764/x.JPEG", None, "n01440764/x.JPEG"),
            ("n01440764/images/x.JPEG", None, "n01440764/images/x.JPEG"),
            ("/a/n01440764/b/n02110185/x.JPEG", None, "n02110185/x.JPEG"),
            ("/a/b/x.png", None, "x.png"),
            ("/a/n01440764", None, "n01440764"),
            ("x.png", None, "x.png"),
            ("/a/b/x.png", "/a", "b/x.png"),
            ("a/b/x.png", "a/", "b/x.png"),
            (Path("/a/n01440764/x.png"), Path("/a/n01440764"), "x.png"),
        ],
    )
    def test_it_does_not_depend_on_where_the_data_lie(self, path, root, key):
        assert image_key(path, root) == key

    def test_an_image_elsewhere_is_refused(self):
        with pytest.raises(ValueError, match=r"expected an image in '/a/b', got '/a/c/x\.png'"):
            image_key("/a/c/x.png", "/a/b")


class TestCorrupt:
    def test_arrays_and_pictures_come_out_alike(self):
        corrupt = Corrupt("gaussian_noise", 2, Corruptor("coco-c", seed=3))
        array = corrupt(IMAGE, "k")
        np.testing.assert_array_equal(array, Corruptor("coco-c", seed=3)(IMAGE, "gaussian_noise", 2, "k"))
        np.testing.assert_array_equal(np.asarray(corrupt(Image.fromarray(IMAGE), "k")), array)

    def test_grey_pictures_become_rgb(self):
        grey = Image.fromarray(IMAGE).convert("L")
        out = Corrupt("contrast", 1)(grey)
        np.testing.assert_array_equal(np.asarray(out), Corrupt("contrast", 1)(np.array(grey.convert("RGB"))))

    @pytest.mark.parametrize("severity", [0, 1])
    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
    def test_deep_pictures_are_refused(self, severity, dtype):
        deep = Image.fromarray(np.full((40, 40), 3000, dtype))
        with pytest.raises(
            ValueError,
            match=rf"expected 8 bits a channel, got mode {deep.mode}: convert it by .* by 257",
        ):
            Corrupt("contrast", severity)(deep)

    def test_severity_0_leaves_images_alone(self):
        corrupt = Corrupt("fog", 0)
        assert corrupt(IMAGE) is IMAGE
        np.testing.assert_array_equal(np.asarray(corrupt(Image.fromarray(IMAGE))), IMAGE)

    @pytest.mark.parametrize(
        ("name", "severity"),
        [("rain", 1), ("fog", 6), ("fog", -1), ("fog", True), ("fog", 1.5), ("fog", 0.0), ("fog", False)],
    )
    def test_wrong_settings_are_refused_at_once(self, name, severity):
        with pytest.raises(ValueError, match=r"expected a (corruption|severity)"):
            Corrupt(name, severity)

    def test_workers_change_nothing(self):
        data = Images(Corrupt("gaussian_noise", 3))
        alone = [*torch.utils.data.DataLoader(data, batch_size=None)]
        several = [*torch.utils.data.DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="spawn")]
        assert len(alone) == len(data)
        for one, other in zip(alone, several, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        assert not torch.equal(alone[0], alone[1])

    def test_it_can_be_pickled(self):
        corrupt = Corrupt("fog", 3, Corruptor("coco-c", seed=4))
        assert pickle.loads(pickle.dumps(corrupt)) == corrupt


class Images(torch.utils.data.Dataset):
    def __init__(self, corrupt):
        self.corrupt = corrupt

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.from_numpy(self.corrupt(IMAGE, index))


@pytest.fixture(scope="module")
def step():
    pytest.importorskip("mmcv")
    from dtn_det.corruptions.transforms import ImageCorruption

    return ImageCorruption


def apply(step, **results):
    return step({"img": np.ascontiguousarray(IMAGE[..., ::-1]), **results})["img"][..., ::-1]


class TestImageCorruption:
    def test_the_corruption_sees_rgb(self, step):
        out = apply(step("jpeg_compression", 5, seed=2), img_id=7)
        np.testing.assert_array_equal(out, Corruptor("coco-c", seed=2)(IMAGE, "jpeg_compression", 5, 7))

    def test_or_bgr_for_published_numbers(self, step):
        out = apply(step("jpeg_compression", 5, channel_order="bgr"), img_id=7)
        swapped = np.ascontiguousarray(IMAGE[..., ::-1])
        np.testing.assert_array_equal(out[..., ::-1], Corruptor("coco-c")(swapped, "jpeg_compression", 5, 7))
        assert not np.array_equal(out, apply(step("jpeg_compression", 5), img_id=7))

    def test_all_settings_arrive(self, step, shared_dir):
        folder = shared_dir / "data/imagenet_c_samples/frost"
        corruptor = Corruptor("imagenet-c", 4, False, "bgr", str(folder))
        out = apply(step("frost", 1, "imagenet-c", 4, False, "bgr", folder), img_id=1)
        np.testing.assert_array_equal(out, corruptor(IMAGE, "frost", 1, 1))

    def test_severity_0_leaves_the_image_alone(self, step):
        results = {"img": IMAGE}
        assert step("fog", 0)(results)["img"] is IMAGE

    def test_the_id_is_the_key(self, step):
        fog = step("fog", 3)
        np.testing.assert_array_equal(apply(fog, img_id=7, img_path="/a/x"), apply(fog, img_id="7", img_path="/b/y"))
        assert not np.array_equal(apply(fog, img_id=7), apply(fog, img_id=8))

    def test_else_the_path(self, step):
        fog = step("fog", 3)
        here = apply(fog, img_path="/here/val/n01440764/x.JPEG")
        np.testing.assert_array_equal(here, apply(fog, img_path="there/n01440764/x.JPEG"))
        np.testing.assert_array_equal(here, Corruptor("coco-c")(IMAGE, "fog", 3, "n01440764/x.JPEG"))
        rooted = apply(step("fog", 3, data_root="/here"), img_path="/here/val/n01440764/x.JPEG")
        np.testing.assert_array_equal(rooted, Corruptor("coco-c")(IMAGE, "fog", 3, "val/n01440764/x.JPEG"))

    def test_images_without_a_name_are_refused(self, step):
        with pytest.raises(ValueError, match="expected 'img_id' or 'img_path' in the results, got 'img'"):
            apply(step("fog", 3))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"corruption": "rain"}, "expected a corruption out of .* got 'rain'"),
            ({"severity": 6}, "expected a severity from 1 to 5"),
            ({"profile": "voc-c"}, "expected a profile out of .* got 'voc-c'"),
            ({"seed": "x"}, "expected seed to be an integer"),
            ({"channel_order": "grb"}, "expected channel_order"),
            ({"backend": "wand"}, "expected backend"),
        ],
    )
    def test_wrong_settings_are_refused_when_it_is_built(self, step, settings, message):
        with pytest.raises(ValueError, match=message):
            step(**{"corruption": "fog", "severity": 3, **settings})

    def test_its_text_says_all_that_matters(self, step):
        assert repr(step("fog", 3)) == f"ImageCorruption(fog, severity=3, {Corruptor('coco-c').identity})"

    @pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int64])
    def test_whole_numbers_of_another_type_give_the_same_pixels_in_that_type(self, step, dtype):
        expected = step("fog", 3)({"img": IMAGE.copy(), "img_id": 1})["img"]
        found = step("fog", 3)({"img": IMAGE.astype(dtype), "img_id": 1})["img"]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize(
        ("image", "values"),
        [
            (FULL.astype(np.uint16) * 16, "uint16 from 0 to 4080"),
            (FULL.astype(np.float32) / 255, "float32 from 0 to 1"),
            (FULL.astype(np.float32) + np.float32(0.5), "float32 from 0.5 to 255.5"),
            (FULL.astype(np.int16) - 128, "int16 from -128 to 127"),
            (np.full(IMAGE.shape, np.nan), "float64 from nan to nan"),
        ],
    )
    def test_what_8_bits_do_not_hold_is_refused_with_image_type_and_range(self, step, image, values):
        from dtn_det.corruptions.transforms import MMDetCorrupt

        for kind in (step, MMDetCorrupt):
            with pytest.raises(ValueError, match=rf"got {values}: convert the images to 8 bits \(got in a/b.png\)"):
                kind("fog", 3)({"img": image, "img_id": 1, "img_path": "a/b.png"})
        # Without a corruption, images are what the pipeline loads.
        assert step("fog", 0)({"img": image, "img_id": 1})["img"] is image


class TestMMDetCorrupt:
    """`Corrupt` of MMDetection up to 3.3: `imagecorruptions.corrupt(img.astype(np.uint8), name, severity)`."""

    @pytest.fixture
    def build(self, step):
        from mmcv.transforms import TRANSFORMS

        return lambda **settings: TRANSFORMS.build({"type": "Corrupt", **settings})

    @pytest.mark.parametrize("name", ["contrast", "jpeg_compression", "pixelate", "saturate"])
    def test_pixels_are_those_of_imagecorruptions_on_the_array_as_loaded(self, build, name):
        package = pytest.importorskip("imagecorruptions")
        bgr = np.ascontiguousarray(IMAGE[..., ::-1])
        expected = package.corrupt(bgr, corruption_name=name, severity=4)
        out = build(corruption=name, severity=4)({"img": bgr.copy(), "img_id": 1})["img"]
        different = np.abs(out.astype(int) - expected.astype(int))
        assert different.max() <= 1
        assert (different > 0).mean() < 0.05
        swapped = package.corrupt(IMAGE, corruption_name=name, severity=4)[..., ::-1]
        if name in ("jpeg_compression", "saturate"):
            assert np.abs(swapped.astype(int) - expected.astype(int)).max() > 5

    def test_the_severity_is_1_by_default(self, build):
        out = build(corruption="brightness")({"img": IMAGE.copy(), "img_id": 1})["img"]
        np.testing.assert_array_equal(
            out, build(corruption="brightness", severity=1)({"img": IMAGE, "img_id": 1})["img"]
        )

    def test_floats_of_whole_numbers_are_taken_as_there(self, build):
        fog = build(corruption="fog", severity=2)
        whole = fog({"img": IMAGE, "img_id": 1})["img"]
        np.testing.assert_array_equal(whole, fog({"img": IMAGE.astype(np.float32), "img_id": 1})["img"])

    def test_wrong_settings_are_refused_when_it_is_built(self, build):
        with pytest.raises(ValueError, match="expected a severity from 1 to 5"):
            build(corruption="fog", severity=6)

    def test_a_toolkit_that_has_one_keeps_it(self, build):
        from mmcv.transforms import TRANSFORMS
        from mmengine.registry import Registry

        child = Registry("transform", parent=TRANSFORMS, scope="mmdet_of_old")
        # Asked without `build`, which goes by the default scope that tests before may have left.
        assert type(child.get("Corrupt")(corruption="fog")).__name__ == "MMDetCorrupt"
        child.register_module(name="Corrupt", module=dict)
        assert child.get("Corrupt") is dict
        TRANSFORMS.children.pop("mmdet_of_old")


REGISTRY = """
import json, sys
numba = sys.modules.pop("numba", None)
sys.modules["numba"] = None
from mmengine.config import Config
from mmengine.registry import init_default_scope
config = Config.fromfile(sys.argv[1])
from mmdet.registry import TRANSFORMS
step = dict(config.step)
try:
    TRANSFORMS.build(step)
except ImportError as error:
    messages = [str(error)]
del sys.modules["numba"]
if numba is not None:
    sys.modules["numba"] = numba
for name in [name for name in sys.modules if name.startswith("dtn_det.corruptions")]:
    del sys.modules[name]
scopes = sys.argv[2:]
for scope in scopes:
    init_default_scope(scope)
    registry = __import__(f"{scope}.registry", fromlist=["TRANSFORMS"]).TRANSFORMS
    messages.append(repr(registry.build(step)))
    try:
        registry.build({**step, "severity": 9})
    except ValueError as error:
        messages.append(str(error))
print(json.dumps(messages))
"""


def test_custom_imports_suffice_in_both_toolkits(tmp_path, warm_libraries):
    """One process: it takes seconds to load the toolkits."""
    pytest.importorskip("mmdet")
    pytest.importorskip("mmpretrain")
    config = tmp_path / "config.py"
    config.write_text(
        "custom_imports = dict(imports=['dtn_det'], allow_failed_imports=False)\n"
        "step = dict(type='ImageCorruption', corruption='fog', severity=2)\n"
    )
    done = warm_libraries.run(["-c", REGISTRY, str(config), "mmdet", "mmpretrain"])
    assert done.returncode == 0, done.stderr
    missing, *messages = json.loads(done.stdout.splitlines()[-1])
    assert "dtn-det[corruptions]" in missing
    assert len(messages) == 4
    for built, refused in (messages[:2], messages[2:]):
        assert built.startswith("ImageCorruption(fog, severity=2, coco-c")
        assert "expected a severity from 1 to 5" in refused
