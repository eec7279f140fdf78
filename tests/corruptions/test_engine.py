"""The entry of the engine: arguments, reproducibility, profiles."""

import concurrent.futures
import enum
import hashlib
import io
import multiprocessing
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import rmse, textured
from PIL import Image

from dtn_det.corruptions import ALL, BENCHMARK, EXTRA, GROUPS, PROFILES, Corruptor, corrupt, group_of
from dtn_det.corruptions.stream import Stream

RANDOM = (
    *GROUPS["noise"], "speckle_noise", "glass_blur", "motion_blur", "snow", "frost", "fog", "elastic_transform",
    "spatter",
)  # fmt: skip

OF_IMAGENET_C = [name for name, profile in PROFILES.items() if profile.catalog.names == ALL]

IMAGE = textured(40, 40)


def test_names_and_groups_of_the_paper():
    assert len(BENCHMARK) == 15
    assert len(EXTRA) == 4
    assert BENCHMARK[0] == "gaussian_noise"
    assert BENCHMARK[-1] == "jpeg_compression"
    assert group_of("frost") == "weather"
    assert group_of("spatter") == "extra"
    for profile in PROFILES.values():
        assert set(profile.table) == set(profile.catalog.names)
        assert all(len(rows) == 5 for rows in profile.table.values())


@given(
    name=st.sampled_from(ALL),
    severity=st.integers(1, 5),
    profile=st.sampled_from(OF_IMAGENET_C),
    height=st.integers(32, 150),
    width=st.integers(32, 150),
    seed=st.integers(0, 2**63),
)
def test_any_size_gives_an_image_of_that_size_and_changes_nothing_else(name, severity, profile, height, width, seed):
    image = textured(height, width)
    before = image.copy()
    state, own = np.random.get_state()[1].copy(), random.getstate()
    first = corrupt(image, name, severity, seed=seed, key="a", profile=profile)
    again = corrupt(image, name, severity, seed=seed, key="a", profile=profile)
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    assert not np.shares_memory(first, image)
    assert np.array_equal(first, again)
    assert np.array_equal(image, before)
    assert np.array_equal(np.random.get_state()[1], state)
    assert random.getstate() == own


@pytest.mark.parametrize("name", RANDOM)
def test_randomness_follows_seed_key_and_severity(name):
    image = textured(96, 80)
    base = corrupt(image, name, 3, seed=1, key="a", profile="coco-c")
    assert not np.array_equal(base, corrupt(image, name, 3, seed=2, key="a", profile="coco-c"))
    assert not np.array_equal(base, corrupt(image, name, 3, seed=1, key="b", profile="coco-c"))
    assert not np.array_equal(base, corrupt(image, name, 3, seed=1, key=None, profile="coco-c"))


def test_streams_of_different_arguments_differ():
    arguments = [(0, "a", "fog", 1), (1, "a", "fog", 1), (0, "b", "fog", 1), (0, "a", "snow", 1), (0, "a", "fog", 2),
                 (0, None, "fog", 1), (0, "None", "fog", 1), (0, "a', 'fog", "fog", 1)]  # fmt: skip
    assert len({Stream(*each).bits(4).tobytes() for each in arguments}) == len(arguments)
    assert np.array_equal(Stream(0, 7, "fog", 1).bits(3), Stream(0, "7", "fog", 1).bits(3))


def test_the_stream_is_the_same_on_every_machine_and_for_ever():
    """Numbers written down once: a change here changes every result that was ever published with the engine."""
    stream = Stream(0, "n01440764/ILSVRC2012_val_00000293.JPEG", "fog", 3)
    assert stream.bits(3).tolist() == [1714184499, 1555585433, 4261107333]


def test_names_and_keys_of_other_types_give_the_same_pixels():
    class Name(str, enum.Enum):
        FOG = "fog"

    expected = corrupt(IMAGE, "fog", 3, seed=1, key="7")
    for name, severity, seed, key in (
        (np.str_("fog"), 3, 1, "7"),
        (Name.FOG, 3, 1, "7"),
        ("fog", np.int8(3), np.int64(1), "7"),
        ("fog", 3, 1, np.str_("7")),
        ("fog", 3, 1, 7),
        ("fog", 3, 1, np.int32(7)),
    ):
        assert np.array_equal(corrupt(IMAGE, name, severity, seed=seed, key=key), expected)


@pytest.mark.parametrize("key", [object(), 1.0, float("nan"), {"a": 1}, ("a",), b"a", True])
def test_keys_that_identify_nothing(key):
    with pytest.raises(ValueError, match=rf"expected key to be a string or an integer .* got {type(key).__name__}"):
        corrupt(IMAGE, "fog", 3, key=key)


def digest(task):
    name, severity, key = task
    image = textured(64, 72, seed=key)
    return task, hashlib.sha256(corrupt(image, name, severity, seed=3, key=key).tobytes()).hexdigest()


def test_processes_and_order_do_not_matter():
    tasks = [(name, severity, severity) for name in ALL for severity in (1, 5)]
    alone = dict(map(digest, tasks))
    shuffled = random.Random(0).sample(tasks, len(tasks))
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        elsewhere = dict(pool.map(digest, shuffled, chunksize=len(tasks)))
    assert elsewhere == alone


def test_channel_order_flips_before_and_after():
    image = textured(48, 48)
    for name in ("snow", "jpeg_compression"):
        seen_as_bgr = corrupt(image, name, 3, key=0, profile="coco-c", channel_order="bgr")
        flipped = corrupt(np.ascontiguousarray(image[..., ::-1]), name, 3, key=0, profile="coco-c")[..., ::-1]
        assert np.array_equal(seen_as_bgr, flipped)
        assert not np.array_equal(seen_as_bgr, corrupt(image, name, 3, key=0, profile="coco-c"))


def test_jpeg_is_the_published_files_round_trip():
    image = textured(64, 64)
    plain = corrupt(image, "gaussian_noise", 3, key=0, jpeg=False)
    file = io.BytesIO()
    Image.fromarray(plain).save(file, "JPEG", quality=85, optimize=True)
    assert np.array_equal(corrupt(image, "gaussian_noise", 3, key=0), np.array(Image.open(file)))
    assert Corruptor("imagenet-c").jpeg_quality == 85
    assert Corruptor("coco-c").jpeg_quality is None
    assert Corruptor("coco-c", jpeg=True).jpeg_quality == 85
    assert Corruptor("cifar-c").jpeg_quality is None
    assert Corruptor("tiny-imagenet-c").jpeg_quality == 85


def test_the_identity_names_all_that_the_pixels_depend_on():
    settings_ = [
        Corruptor(), Corruptor("coco-c"), Corruptor(seed=1), Corruptor(jpeg=False), Corruptor(channel_order="bgr"),
    ]  # fmt: skip
    assert len({each.identity for each in settings_}) == len(settings_)
    assert Corruptor().identity == "imagenet-c jpeg85 rgb seed=0 frost=procedural engine=1"


@pytest.mark.parametrize("profile", ["imagenet-c", "coco-c", "cifar-c", "tiny-imagenet-c"])
@pytest.mark.parametrize("settings_", [{}, {"jpeg": True}, {"jpeg": False}, {"channel_order": "bgr", "seed": -7}])
def test_an_identity_gives_the_corruptor_back(profile, settings_):
    corruptor = Corruptor(profile, **settings_)
    found = Corruptor.from_identity(corruptor.identity)
    assert found.identity == corruptor.identity
    image = textured(40, 48)
    assert np.array_equal(found(image, "snow", 2, "key"), corruptor(image, "snow", 2, "key"))


def test_the_other_backend_comes_back_from_its_identity():
    pytest.importorskip("imagecorruptions")
    corruptor = Corruptor("coco-c", seed=3, backend="imagecorruptions")
    assert Corruptor.from_identity(corruptor.identity) == replace(corruptor, jpeg=False)


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ("files", "expected the identity of corruptions, such as 'imagenet-c jpeg85 .*, got 'files'"),
        (
            "coco-c no-jpeg rgb seed=0 frost=procedural engine=999",
            r"=999', got .*=\d+' here: take the version",
        ),
        ("coco-c jpeg85 rgb seed=0 frost=original:46f4864b engine=1", "got .*frost=procedural.*: name the folder of"),
        ("coco-c jpeg99 rgb seed=0 frost=procedural engine=1", "jpeg99 .*got .*jpeg85"),
        ("moon-c jpeg85 rgb seed=0 frost=procedural engine=1", "expected a profile out of"),
    ],
)
def test_identities_of_other_corruptions(identity, message):
    with pytest.raises(ValueError, match=message):
        Corruptor.from_identity(identity)


def test_a_view_that_is_not_contiguous():
    image = textured(64, 80)
    for view in (image[::-1], image[:, ::-1], image[..., ::-1], image[:40, 8:60], image.transpose(1, 0, 2)):
        assert np.array_equal(corrupt(view, "motion_blur", 2), corrupt(np.ascontiguousarray(view), "motion_blur", 2))


def test_the_other_backend_is_seeded_too():
    pytest.importorskip("imagecorruptions")
    image = textured(64, 80)
    state = np.random.get_state()[1].copy()
    for name in ("gaussian_noise", "impulse_noise", "glass_blur", "fog"):
        first = corrupt(image, name, 3, key=1, profile="coco-c", backend="imagecorruptions")
        assert np.array_equal(first, corrupt(image, name, 3, key=1, profile="coco-c", backend="imagecorruptions"))
        other = corrupt(image, name, 3, key=2, profile="coco-c", backend="imagecorruptions")
        assert not np.array_equal(first, other)
        assert rmse(first, image) > 5
    assert np.array_equal(np.random.get_state()[1], state)
    assert "imagecorruptions" in Corruptor("coco-c", backend="imagecorruptions").identity


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGE.astype(np.float32), "fog", 1), r"dtype uint8 with values from 0 to 255, got float32: convert it"),
        ((np.full((40, 40, 3), np.nan), "fog", 1), "dtype uint8 .* got float64"),
        ((IMAGE[..., 0], "fog", 1), r"shape \(H, W, 3\), got the greyscale shape \(40, 40\): repeat it"),
        ((IMAGE[..., :1], "fog", 1), r"got the greyscale shape \(40, 40, 1\)"),
        ((np.zeros((40, 40, 4), np.uint8), "fog", 1), r"shape \(H, W, 3\), got \(40, 40, 4\)"),
        ((np.zeros((2, 40, 40, 3), np.uint8), "fog", 1), r"got \(2, 40, 40, 3\): pass one image"),
        ((IMAGE[:31], "fog", 1), r"at least 32 x 32 pixels, got \(31, 40\): resize it"),
        ((np.zeros((32, 32_767, 3), np.uint8), "fog", 1), r"at most 32766 pixels a side, got \(32, 32767\)"),
        ((Image.fromarray(IMAGE), "fog", 1), r"expected an array, got Image: pass np.asarray\(image\)"),
        ((IMAGE, "mist", 1), "expected a corruption out of gaussian_noise, .*, got 'mist'"),
        ((IMAGE, "fog", 0), "expected a severity from 1 to 5 .* got 0"),
        ((IMAGE, "fog", 6), "got 6"),
        ((IMAGE, "fog", 2.0), "got 2.0"),
        ((IMAGE, "fog", float("nan")), "got nan"),
        ((IMAGE, "fog", True), "got True"),
        ((IMAGE, "fog", "3"), "got '3'"),
    ],
)
def test_bad_images_names_and_severities(arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupt(*arguments)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"profile": "imagenet"}, "expected a profile out of imagenet-c, coco-c, .*, got 'imagenet'"),
        ({"channel_order": "gbr"}, "expected channel_order to be 'rgb' or 'bgr', got 'gbr'"),
        ({"seed": 1.5}, "expected seed to be an integer, got 1.5"),
        ({"seed": True}, "expected seed to be an integer, got True"),
        ({"jpeg": 85}, "expected jpeg to be True, False or None .* got 85"),
        ({"backend": "wand"}, "expected backend to be 'dtn_det' or 'imagecorruptions', got 'wand'"),
        ({"profile": "cifar-c", "backend": "imagecorruptions"}, "expected profile 'coco-c' .* got 'cifar-c'"),
    ],
)
def test_bad_settings(settings_, message):
    with pytest.raises(ValueError, match=message):
        corrupt(IMAGE, "fog", 1, **settings_)
    with pytest.raises(ValueError, match=message):
        Corruptor(**settings_)


def test_an_unknown_name_has_no_group():
    with pytest.raises(ValueError, match=r"expected a corruption out of .* got 'mist'"):
        group_of("mist")
