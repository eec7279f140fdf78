"""What engine 1 wrote is read, refused for mixing, and made again: `engine_1` holds files of that version."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tree_files import load, picture, plain_folder

from dtn_det.corrupted_folders.manifest import read_manifest
from dtn_det.corrupted_folders.plan import plan_tree
from dtn_det.corrupted_folders.writing import write_tree
from dtn_det.corruptions import PROFILES, Corruptor
from dtn_det.corruptions.cells import CLEAN
from dtn_det.corruptions.identity import Identity, engine_changes
from dtn_det.errors import ReportError, StoreError
from dtn_det.reports.samples import make_samples
from dtn_det.reports.sources import open_sources
from dtn_det.robustness.store import Store

FILES = Path(__file__).parent / "engine_1"
OLD = "coco-c no-jpeg rgb seed=0 frost=procedural engine=1"
NEW = "coco-c no-jpeg rgb seed=0 frost=procedural engine=2"
CHANGE = "engine 1 drew from six, whose frost is 7 % weaker"


def confirm(announcement: str) -> bool:
    return True


class TestIdentities:
    def test_only_profiles_whose_pixels_changed_have_a_new_one(self):
        assert Corruptor("coco-c").identity == NEW
        for profile in ("imagenet-c", "cifar-c", "tiny-imagenet-c"):
            assert Corruptor(profile).identity.endswith("frost=procedural engine=1")

    @pytest.mark.parametrize("profile", sorted(PROFILES))
    @pytest.mark.parametrize("options", [{}, {"seed": -3, "jpeg": True, "channel_order": "bgr"}, {"engine": 1}])
    def test_round_trip(self, profile, options):
        corruptor = Corruptor(profile, **options)
        again = Corruptor.from_identity(corruptor.identity)
        assert again.identity == corruptor.identity == str(Identity.parse(corruptor.identity))
        assert again.rules == corruptor.rules

    def test_an_old_one_gives_the_old_pixels(self):
        old = Corruptor.from_identity(OLD)
        assert old.identity == OLD
        different = 0
        for key in range(8):
            image = picture(key, 64, 64)
            np.testing.assert_array_equal(old(image, "fog", 3, key), Corruptor("coco-c")(image, "fog", 3, key))
            different += not np.array_equal(old(image, "frost", 3, key), Corruptor("coco-c")(image, "frost", 3, key))
        assert different > 4

    def test_versions_that_never_were(self):
        message = "expected engine 1 or 2 for the profile coco-c, got 3: leave it out for the latest"
        with pytest.raises(ValueError, match=message):
            Corruptor("coco-c", engine=3)
        with pytest.raises(ValueError, match=f"got '{NEW}' here: take the version that made them"):
            Corruptor.from_identity(NEW.replace("engine=2", "engine=3"))
        with pytest.raises(ValueError, match="expected engine 1 for the profile cifar-c, got 2"):
            Corruptor("cifar-c", engine=2)

    def test_another_package_has_none(self):
        pytest.importorskip("imagecorruptions")
        with pytest.raises(ValueError, match="expected engine 1 only with backend='dtn_det', got 'imagecorruptions'"):
            Corruptor("coco-c", backend="imagecorruptions", engine=1)
        identity = Corruptor("coco-c", backend="imagecorruptions").identity
        assert Corruptor.from_identity(identity).identity == identity

    def test_what_changed(self):
        assert CHANGE in engine_changes(OLD, NEW) == engine_changes(NEW, f"files made with {OLD}")
        assert engine_changes(OLD, OLD) == engine_changes("files", NEW) == ""
        assert engine_changes(OLD.replace("coco-c", "cifar-c"), NEW) == ""


class TestTree:
    @pytest.fixture
    def source(self, tmp_path):
        return plain_folder(tmp_path / "source", 6)

    @pytest.fixture
    def tree(self, tmp_path):
        return Path(shutil.copytree(FILES / "tree", tmp_path / "tree"))

    def test_is_read(self, tree):
        assert read_manifest(tree)["identity"] == OLD

    def test_its_pixels_are_made_again(self, source, tree):
        corruptor = Corruptor.from_identity(read_manifest(tree)["identity"])
        files = sorted((tree / "frost/3").rglob("*.png"))
        assert len(files) == 6
        for file in files:
            key = file.relative_to(tree / "frost/3").as_posix()
            difference = load(file).astype(int) - corruptor(load(source / key), "frost", 3, key)
            # On other processors a few floats fall on the other side of a whole number.
            assert np.abs(difference).max() <= 1
            assert (difference != 0).mean() < 0.01

    def test_refuses_to_mix(self, source, tree):
        plan = plan_tree(source, tree, ["frost"], [3, 4])
        with pytest.raises(ValueError, match=f"identity was '{OLD}', is '{NEW}'.*{CHANGE}"):
            write_tree(plan, 1, Console(quiet=True), confirm)
        assert not (tree / "frost/4").exists()

    def test_goes_on_as_the_message_says(self, source, tree):
        plan = plan_tree(source, tree, ["frost"], [3])
        with pytest.raises(ValueError, match="go on with it by --engine 1"):
            write_tree(plan, 1, Console(quiet=True), confirm)
        (tree / "frost/3/0.png").unlink()
        plan = plan_tree(source, tree, ["frost"], [3], corruptor=lambda profile: Corruptor(profile, engine=1))
        assert write_tree(plan, 1, Console(quiet=True), confirm) == ()
        difference = load(tree / "frost/3/0.png").astype(int) - load(FILES / "tree/frost/3/0.png")
        assert np.abs(difference).max() <= 1


class TestStore:
    @pytest.fixture
    def images(self, tmp_path):
        """The images of the store, in a format whose files have one size everywhere."""
        folder = tmp_path / "images"
        folder.mkdir()
        for number in range(1, 9):
            with (folder / f"{number}.jpg").open("wb") as file:
                Image.fromarray(picture(number, 96, 128)).save(file, "BMP")
        return folder

    def test_is_read(self):
        store = Store.open(FILES / "store")
        assert store.manifest.corruption == OLD
        assert store.models()["ln"].read(0).num_rows > 0

    def test_refuses_to_mix(self):
        store = Store.open(FILES / "store")
        manifest = replace(store.manifest, corruption=NEW)
        with pytest.raises(StoreError, match=f"the store has '{OLD}', this run '{NEW}' .*{CHANGE}.*--engine 1 goes on"):
            Store.create(FILES / "store", manifest, store.images())

    def test_sample_pictures_are_the_old_pixels(self, images, monkeypatch):
        monkeypatch.setattr("dtn_det.reports.samples._LOSSLESS_SIDE", 128)
        gallery = make_samples(open_sources([FILES / "store"]), images)
        assert gallery.images
        old, new = Corruptor("coco-c", engine=1), Corruptor("coco-c")
        different = 0
        for sample in gallery.images:
            clean = load(images / sample.key)
            for one in sample.pictures:
                if one.cell == CLEAN:
                    continue
                shown = load(io.BytesIO(one.webp))
                key = sample.key.removesuffix(".jpg")
                np.testing.assert_array_equal(shown, old(clean, *one.cell, key))
                different += not np.array_equal(shown, new(clean, *one.cell, key))
        assert different

    def test_a_report_with_a_new_one_is_refused(self, tmp_path):
        other = Path(shutil.copytree(FILES / "store", tmp_path / "new"))
        (other / "models/ln").rename(other / "models/dtn")
        for file, key, value in (("store.json", "corruption", NEW), ("models/dtn/model.json", "name", "dtn")):
            content = json.loads((other / file).read_text())
            (other / file).write_text(json.dumps({**content, key: value}))
        with pytest.raises(ReportError, match=f"corruption: {OLD} and {NEW} .*{CHANGE}"):
            open_sources([FILES / "store", other])
