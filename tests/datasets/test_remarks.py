"""What readers leave out is counted, told once and kept in the store."""

from __future__ import annotations

from dtn_det.corruptions.cells import Cell
from dtn_det.datasets.remarks import Remark, agreeing, tell
from dtn_det.robustness.store.manifest import StoreManifest, differences

REMARK = Remark("other", "files were passed over", "val", 4, ("a.txt", "b.txt", "c.txt", "d.txt"))


def _manifest(*remarks: Remark) -> StoreManifest:
    cells = (Cell("clean", 0),)
    return StoreManifest("classification", "val", "0", 1, "all", "files", cells, 1, remarks=remarks)


def test_sentence_names_place_count_and_examples() -> None:
    assert REMARK.sentence() == "val: 4 files were passed over (a.txt, b.txt, c.txt, ...)"


def test_each_remark_is_told_once_and_partial_ones_are_warnings() -> None:
    told: list[str] = []
    tell([REMARK, REMARK, Remark("part", "of 5 images are used", "val", 2, partial=True)], told.append)
    assert told == [f"note: {REMARK.sentence()}", "warning: val: 2 of 5 images are used"]


def test_manifest_keeps_remarks_and_reads_stores_without() -> None:
    kept = StoreManifest.from_dict(_manifest(REMARK).to_dict())
    assert [remark.sentence() for remark in kept.remarks] == [REMARK.sentence()]
    old = {key: value for key, value in _manifest().to_dict().items() if key != "remarks"}
    assert StoreManifest.from_dict(old).remarks == ()
    assert differences(old, _manifest(REMARK).to_dict()) == []


def test_words_agree_with_the_count() -> None:
    text = "{image was|images were} left out"
    assert (agreeing(1, text), agreeing(2, text)) == ("image was left out", "images were left out")
