"""The line that says what images were corrupted by: every form that stores and folders have ever held."""

from __future__ import annotations

import pytest

from dtn_det.corruptions import PROFILES, Corruptor
from dtn_det.corruptions.identity import CorruptionOrigin, Identity, engine_changes

ENGINE_1 = "coco-c no-jpeg rgb seed=0 frost=procedural engine=1"
ENGINE_2 = "coco-c no-jpeg bgr seed=7 frost=original:46f4864b engine=2"
PACKAGE = "coco-c jpeg85 rgb seed=-3 imagecorruptions-imaug=1.1.5"


@pytest.mark.parametrize(
    ("line", "identity"),
    [
        (ENGINE_1, Identity("coco-c", None, "rgb", 0, "procedural", 1)),
        (ENGINE_2, Identity("coco-c", None, "bgr", 7, "original:46f4864b", 2)),
        (PACKAGE, Identity("coco-c", 85, "rgb", -3, package="imagecorruptions-imaug=1.1.5")),
        ("cifar-c no-jpeg rgb seed=0", Identity("cifar-c", None, "rgb", 0)),
    ],
)
@pytest.mark.parametrize("from_files", [False, True])
def test_each_form_is_read_and_written_back(line: str, identity: Identity, from_files: bool) -> None:
    assert Identity.parse(line) == identity
    assert str(identity) == line
    text = f"files made with {line}" if from_files else line
    origin = CorruptionOrigin.parse(text)
    assert origin == CorruptionOrigin(from_files, identity, text)
    assert str(origin) == text
    assert not from_files or CorruptionOrigin.of_files(line) == origin


def test_files_that_do_not_tell() -> None:
    assert CorruptionOrigin.parse("files") == CorruptionOrigin.of_files(None) == CorruptionOrigin(True, None, "files")
    assert CorruptionOrigin.parse("files").is_untold


@pytest.mark.parametrize("text", ["as imported", "filesystem", "files made with ImageMagick", "coco-c jpeg85 seed=0"])
def test_words_that_were_never_written(text: str) -> None:
    origin = CorruptionOrigin.parse(text)
    assert origin.made_by is None
    assert not origin.is_untold
    assert origin.from_files == text.startswith("files made")
    assert str(origin) == text


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_the_engine_writes_what_is_read(profile: str) -> None:
    corruptor = Corruptor(profile, 5, channel_order="bgr")
    found = CorruptionOrigin.parse(corruptor.identity)
    assert not found.from_files
    assert found.made_by is not None
    assert (found.made_by.profile, found.made_by.seed, found.made_by.channel_order) == (profile, 5, "bgr")
    assert (found.made_by.jpeg_quality, found.made_by.engine) == (corruptor.jpeg_quality, corruptor.rules.engine)


def test_changes_between_engines() -> None:
    changes = engine_changes(ENGINE_1, ENGINE_2)
    assert changes.startswith("since engine 2 the frost of coco-c is drawn from five textures")
    assert engine_changes(f"files made with {ENGINE_2}", ENGINE_1) == changes
    assert engine_changes(ENGINE_1, ENGINE_1) == ""
    assert engine_changes(ENGINE_1, PACKAGE) == engine_changes("files", ENGINE_1) == ""
    assert engine_changes(ENGINE_1, "imagenet-c jpeg85 rgb seed=0 frost=procedural engine=2") == ""
