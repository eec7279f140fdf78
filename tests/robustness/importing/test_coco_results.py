"""`dtn-det import --format coco-results`: detections of any program become a store like that of `dtn-det mpc`."""

from __future__ import annotations

import copy
import gzip
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("hotcoco", reason="detections need COCO's evaluation")
pytest.importorskip("pyarrow")

from report_stores import detector_store

from dtn_det.cli.main import main
from dtn_det.corruptions.cells import Cell, sweep_cells
from dtn_det.errors import InputError, ReportError, StoreError
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.samples import make_samples
from dtn_det.reports.sources import open_sources
from dtn_det.reports.tables import report_tables
from dtn_det.robustness.detection.evaluation import read_cells
from dtn_det.robustness.detection.second_opinion import coco_results
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.importing.detections import import_detections
from dtn_det.robustness.store import ModelStore, Store, blocks

CELLS = sweep_cells(("snow", "fog"), (1, 3))
Results = dict[Cell, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A store of one detector of boxes and masks, as `dtn-det mpc` writes it, beside its annotation file."""
    return detector_store(tmp_path_factory.mktemp("measured") / "set", {"ours": 0}, images=12, cells=CELLS, masks=True)


@pytest.fixture(scope="module")
def annotations(measured) -> Path:
    return measured.parent / "set.json"


@pytest.fixture(scope="module")
def detections(measured) -> Results:
    """The detections of the store in COCO's result format, boxes and masks together; not to be changed."""
    store = Store.open(measured)
    truth = CocoTruth.of(store)
    found: Results = {}
    for cell in read_cells(store.model("ours"), range(len(CELLS))):
        rows = coco_results(truth, cell, "bbox")
        for row, mask in zip(rows, coco_results(truth, cell, "segm"), strict=True):
            runs = mask["segmentation"]
            row["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
        found[CELLS[cell.cell]] = rows
    return found


def write_results(folder: Path, found: Results, layout: str = "{corruption}/{severity}/dets.json") -> Path:
    for cell, rows in found.items():
        path = folder / ("clean.json" if not cell.severity else layout.format(**cell._asdict()))
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(rows).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return folder


def boxes_alone(found: Results) -> Results:
    return {
        cell: [{key: value for key, value in row.items() if key != "segmentation"} for row in rows]
        for cell, rows in found.items()
    }


def records(model: ModelStore) -> list[dict[str, Any]]:
    return [row for table in model.batches() for row in table.to_pylist()]


def values(table: pd.DataFrame, name: str, scope: str, severity: int, column: str = "value") -> list[float]:
    """The entries of a report's table for one number."""
    rows = table[(table["name"] == name) & (table["scope"] == scope) & (table["severity"] == severity)]
    return [float(value) for value in rows[column]]


LAYOUTS = (
    "{corruption}/{severity}/dets.json",
    "weather/{corruption}/severity_{severity}.json",
    "{corruption}_{severity}.json",
    "{corruption}-{severity}.json.gz",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_give_the_records_that_were_exported(layout, measured, annotations, detections, tmp_path):
    folder = write_results(tmp_path / "theirs", detections, layout)
    found = import_detections(folder, annotations, tmp_path / "store")
    assert (found.model.manifest.name, found.detections, found.masks) == ("theirs", 180, True)
    assert found.model.store.manifest.cells == CELLS
    own = records(Store.open(measured).model("ours"))
    for got, expected in zip(records(found.model), own, strict=True):
        assert got.pop("boxes") == pytest.approx(expected["boxes"], abs=1e-5)
        assert got.pop("scores") == pytest.approx(expected["scores"], abs=1e-7)
        assert got == {key: value for key, value in expected.items() if key not in ("boxes", "scores")}


def test_every_ap_is_that_of_pycocotools_on_the_files(annotations, detections, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    found = import_detections(write_results(tmp_path / "theirs", detections), annotations, tmp_path / "store")
    report = collect([found.model.store.folder], ReportOptions(replicates=0))
    for section in report.sections:
        with redirect_stdout(io.StringIO()):
            truth = coco.COCO(str(annotations))
        for cell, rows in detections.items():
            with redirect_stdout(io.StringIO()):
                evaluation = cocoeval.COCOeval(truth, truth.loadRes(copy.deepcopy(rows)), section.kind)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            assert values(section.numbers, "AP", *cell) == [pytest.approx(100 * evaluation.stats[0], abs=1e-6)]


def test_files_of_boxes_and_of_masks_as_mmdetection_writes_them(annotations, detections, tmp_path):
    folder = tmp_path / "theirs"
    scored = {cell: [{**row, "score": row["score"] / 2} for row in rows] for cell, rows in detections.items()}
    for kind, rows in (("bbox", boxes_alone(detections)), ("segm", scored)):
        for cell, here in rows.items():
            name = "clean/0" if not cell.severity else f"{cell.corruption}/{cell.severity}"
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"out.{kind}.json").write_text(json.dumps(here))
    model = import_detections(folder, annotations, tmp_path / "store").model
    row = records(model)[0]
    assert row["mask_scores"] == pytest.approx([score / 2 for score in row["scores"]])
    short = folder / "fog/3/out.segm.json"
    short.write_text(json.dumps(json.loads(short.read_text())[1:]))
    with pytest.raises(InputError, match=r"same detections in the same order as in .*bbox\.json.*got 35 det"):
        import_detections(folder, annotations, tmp_path / "other")


def test_masks_without_boxes_get_the_boxes_around_them(annotations, detections, tmp_path):
    alone = {cell: [{**row, "bbox": None} for row in rows] for cell, rows in detections.items()}
    model = import_detections(write_results(tmp_path / "masks", alone), annotations, tmp_path / "store").model
    x1, y1, x2, y2 = records(model)[0]["boxes"][:4]
    with_boxes = detections[CELLS[0]][0]["bbox"]
    assert [x1, y1, x2 - x1, y2 - y1] == pytest.approx(with_boxes, abs=1.5)


def test_a_report_with_a_measured_store_pairs_the_images_and_tells_the_doubt(
    measured, annotations, detections, tmp_path, capsys
):
    better = {cell: rows if cell.severity < 3 else detections[CELLS[0]] for cell, rows in detections.items()}
    folder = write_results(tmp_path / "theirs", better)
    assert main(["import", "--format", "coco-results", str(folder), "--ann", str(annotations), "--store",
                 str(tmp_path / "store"), "--name", "yolo"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "yolo: 180 detections (boxes and masks) in 12 images under 5 conditions" in out
    assert out.count("71 of 75 conditions (a corruption at a severity) have no result file") == 1
    assert "1 result file is the same for several conditions, as if copied (clean 0 and snow 3 and fog 3)" in out
    report = collect([measured, tmp_path / "store"], ReportOptions(replicates=50))
    assert report.sections[0].pairs == (("ours", "yolo"),)
    changes = report.sections[0].differences
    assert [*values(changes, "P AP", "", 0), *values(changes, "P AP", "", 0, "high")] == [0, 0]
    (low,), (value,) = (values(changes, "AP", "fog", 3, column) for column in ("low", "value"))
    assert 0 < low <= value
    assert "imported results; how the images were corrupted is not known" in report.provenance.corruption
    assert "yolo: imported results; how the images were corrupted is not known, so a difference" in "\n".join(
        report.remarks
    )
    ours, yolo = report.models
    assert (ours.origin, yolo.origin, yolo.num_parameters) == ("measured", "imported", None)
    sources = open_sources([tmp_path / "store"])
    with pytest.raises(ReportError, match="expected models that were evaluated here for sample images"):
        make_samples(sources, tmp_path, ())


def test_stores_of_other_annotations_are_no_report(measured, annotations, detections, tmp_path):
    content = json.loads(annotations.read_text())
    content["annotations"][0]["bbox"][0] += 1
    (tmp_path / "other.json").write_text(json.dumps(content))
    folder = write_results(tmp_path / "theirs", detections)
    import_detections(folder, tmp_path / "other.json", tmp_path / "store")
    with pytest.raises(ReportError, match=r"data set: boxes \(12 images\) and other\.json \(12 images\)"):
        collect([measured, tmp_path / "store"])


def test_a_second_detector_joins_the_store_and_other_cells_do_not(annotations, detections, tmp_path):
    store = tmp_path / "store"
    folder = write_results(tmp_path / "theirs", detections)
    first = import_detections(folder, annotations, store)
    assert import_detections(folder, annotations, store).model == first.model
    import_detections(folder, annotations, store, "again")
    assert list(Store.open(store).models()) == ["again", "theirs"]
    (folder / "fog/1/dets.json").write_text("[]")
    with pytest.raises(StoreError, match=r"expected the model 'theirs' .* to be the same"):
        import_detections(folder, annotations, store)
    (folder / "fog/1/dets.json").unlink()
    with pytest.raises(StoreError, match="only the store has fog 1"):
        import_detections(folder, annotations, store, "less")
    assert sorted(path.name for path in (store / "models").iterdir()) == ["again", "theirs"]


def test_empty_lists_images_without_detections_and_files_of_other_names_are_told(annotations, detections, tmp_path):
    found = {cell: [row for row in rows if row["image_id"] > 2] for cell, rows in detections.items()}
    folder = write_results(tmp_path / "theirs", {**found, Cell("fog", 3): []})
    (folder / "metrics.json").write_text("{}")
    (folder / "notes.txt").write_text("x")
    remarks = import_detections(folder, annotations, tmp_path / "store").remarks
    told = " ".join(one.sentence() for one in remarks)
    assert "2 of 12 images have no detection in any result file" in told
    assert "give --ann a file of the images that it saw (image 1, image 2)" in told
    assert "1 JSON file whose name tells no corruption and severity was passed over (metrics.json)" in told
    report = collect([tmp_path / "store"], ReportOptions(replicates=0))
    assert values(report.sections[0].numbers, "AP", "fog", 3) == [0]


def test_one_file_is_that_of_the_clean_images(annotations, detections, tmp_path):
    file = tmp_path / "yolo.json"
    file.write_text(json.dumps(detections[CELLS[0]]))
    found = import_detections(file, annotations, tmp_path / "store")
    assert found.model.manifest.name == "yolo"
    assert found.model.store.manifest.cells == (Cell("clean", 0),)
    assert [one.kind for one in found.remarks] == ["clean_alone"]
    report = collect([tmp_path / "store"], ReportOptions(replicates=20))
    assert not any("how the images were corrupted" in text for text in report.remarks)
    summary = report_tables(report)[0]
    assert [column.heading for column in summary.columns] == ["AP", "AP50", "AP75", "APm"]
    (row,) = summary.groups[0].rows
    assert row.cells[0].value == pytest.approx(values(report.sections[0].numbers, "AP", "clean", 0)[0])
    low, high = row.cells[0].interval
    assert low < row.cells[0].value < high


def test_annotations_without_masks_leave_the_masks_out(annotations, detections, tmp_path):
    content = json.loads(annotations.read_text())
    for one in content["annotations"]:
        del one["segmentation"]
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(content))
    found = import_detections(write_results(tmp_path / "theirs", detections), plain, tmp_path / "store")
    assert not found.masks
    assert "masks_left_out" in [one.kind for one in found.remarks]
    assert {row["masks"] is None for row in records(found.model)} == {True}


def changed(**values: object):
    """A change of the second detection of the file."""

    def change(rows: list[dict[str, Any]]) -> object:
        rows[1] = {key: value for key, value in {**rows[1], **values}.items() if value is not ...}
        return rows

    return change


def as_corners(rows: list[dict[str, Any]]) -> object:
    for row in rows:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]
    return rows


def as_fractions(rows: list[dict[str, Any]]) -> object:
    for row in rows:
        row["bbox"] = [value / 128 for value in row["bbox"]]
    return rows


BAD = {
    "image": (changed(image_id=99), r"ids of images of .*set\.json in .*, got the image_id 99 in detection 2"),
    "image name": (changed(image_id="1"), r"got the image_id '1' in detection 2: write the image's id"),
    "no image": (changed(image_id=...), "got no image_id in detection 2"),
    "category": (changed(category_id=0), r"got the category_id 0 in detection 2: .*\(1, 2, \.\.\.\)"),
    "flag": (changed(category_id=True), "got the category_id True in detection 2"),
    "no score": (changed(score=...), r"a finite number as score in .*, got no score in detection 2 \(image_id 1\)"),
    "score": (changed(score=float("nan")), "got the score nan in detection 2"),
    "score text": (changed(score="0.5"), "got the score '0.5' in detection 2"),
    "no box": (changed(bbox=...), "a bbox of four numbers of each detection in .*, got no bbox in detection 2"),
    "short box": (changed(bbox=[1, 2, 3]), r"got bbox \[1, 2, 3\] in detection 2"),
    "text box": (changed(bbox=["1", "2", "3", "4"]), r"got bbox \['1', '2', '3', '4'\] in detection 2"),
    "infinite box": (changed(bbox=[1, 2, 3, float("inf")]), r"four finite numbers in .*, got bbox \[1, 2, 3, inf\]"),
    "negative box": (changed(bbox=[9, 9, -3, 2]), r"width and a height of at least 0 in .*, got bbox \[9, 9, -3, 2\]"),
    "corners": (as_corners, r"of 36 boxes that reach beyond their image but fit it as corners .* of 128 x 96"),
    "fractions": (as_fractions, "boxes within the first pixel, as fractions of the image are, such as"),
    "no mask": (changed(segmentation=...), "run lengths as segmentation of each .*, got none in detection 2"),
    "polygon": (changed(segmentation=[[1, 1, 5, 1, 5, 5]]), "got polygons in detection 2"),
    "mask size": (
        changed(segmentation={"size": [128, 96], "counts": [128 * 96]}),
        r"here \[height, width\] \[96, 128\] in .*, got the size \[128, 96\] in detection 2",
    ),
    "mask runs": (changed(segmentation={"size": [96, 128], "counts": [5]}), "got run lengths of 5 pixels in a mask"),
    "entry": (lambda rows: [rows[0], 7], "a list of detections in .*, got 7 as entry 2"),
    "no list": (lambda rows: {"images": [], "annotations": []}, "got a dict with the keys images, annotations"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            lambda number: f"{number:04}",
            "got the image_id 1 in detection 1: write the id as the .* has it, the text '0001'",
        ),
        (lambda number: number + 100, r"write the ids of the annotation file, 101 here, not the numbers in the names"),
    ],
)
def test_ids_that_the_annotations_write_otherwise(ids, message, annotations, detections, tmp_path):
    """Some programs take the number in the name of an image file as its id."""
    content = json.loads(annotations.read_text())
    for image in content["images"]:
        number = image["id"]
        image.update(id=ids(number), file_name=f"{number:04}.jpg")
    for one in content["annotations"]:
        one["image_id"] = ids(one["image_id"])
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        import_detections(write_results(tmp_path / "theirs", detections), other, tmp_path / "store")


@pytest.mark.parametrize("case", BAD)
def test_bad_results_are_refused_before_anything_is_written(case, annotations, detections, tmp_path):
    change, message = BAD[case]
    cell = Cell("fog", 3)
    folder = write_results(tmp_path / "theirs", {**detections, cell: change(copy.deepcopy(detections[cell]))})
    with pytest.raises(InputError, match=message) as raised:
        import_detections(folder, annotations, tmp_path / "store")
    assert "fog/3/dets.json" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("fog/3/more.json", "[]", r"one result file for fog at severity 3, .* got .*dets\.json and .*more\.json"),
        ("fog_3.json", "[]", r"one result file for fog at severity 3, .* got .*dets\.json and .*fog_3\.json"),
        ("clean/0/x.json", "[]", "one result file for the clean images"),
        ("clean/3/x.json", "[]", "got severity 3 of the clean images in clean/3/x"),
        ("mist/1/x.json", "[]", "got the corruption 'mist' in mist/1/x: rename it, or move it away"),
        ("contrasts/1.json", "[]", "got the corruption 'contrasts' in contrasts/1: rename it to contrast"),
        ("contrasts_1.json", "[]", "got the corruption 'contrasts' in contrasts_1: rename it to contrast"),
        ("fog/6/x.json", "[]", "got severity '6' of fog in fog/6/x: name severities 1 to 5"),
        ("sparkles/1/x.json", "[]", "expected corruptions of one benchmark"),
        ("frost/1/x.json", "[{", "expected JSON in .*frost/1/x.json"),
        ("frost/1/x.json.gz", "[]", "no error"),
    ],
)
def test_unclear_names_and_damaged_files_are_refused(name, text, message, annotations, detections, tmp_path):
    folder = write_results(tmp_path / "theirs", detections)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    if message == "no error":  # a file that is called compressed and is not is read as it is
        import_detections(folder, annotations, tmp_path / "store")
        return
    with pytest.raises(InputError, match=message):
        import_detections(folder, annotations, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_folder_without_results_and_none_at_all(annotations, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected result files .* in .*empty, got none"):
        import_detections(tmp_path / "empty", annotations, tmp_path / "store")
    (tmp_path / "empty/fog.json").write_text("[]")
    with pytest.raises(InputError, match=r"got 1 JSON files of other names, such as fog\.json"):
        import_detections(tmp_path / "empty", annotations, tmp_path / "store")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        import_detections(tmp_path / "absent", annotations, tmp_path / "store")


def test_masks_in_some_files_alone_are_refused(annotations, detections, tmp_path):
    mixed = {**detections, Cell("fog", 3): boxes_alone(detections)[Cell("fog", 3)]}
    folder = write_results(tmp_path / "theirs", mixed)
    with pytest.raises(InputError, match=r"got masks in .*clean\.json and none in .*fog/3/dets\.json"):
        import_detections(folder, annotations, tmp_path / "store")


def test_a_few_boxes_beyond_their_image_are_evaluated_and_many_are_told(annotations, detections, tmp_path):
    found = boxes_alone(detections)
    found[CELLS[0]] = [{**row, "bbox": [100, 80, 50, 50]} for row in found[CELLS[0]]]
    told = import_detections(write_results(tmp_path / "theirs", found), annotations, tmp_path / "store").remarks
    text = next(one.sentence() for one in told if one.kind == "boxes_beyond_image")
    assert re.search(
        r"clean\.json: 36 boxes reach beyond their images, .*\[100\.0, 80\.0, 50\.0, 50\.0\] as detection 1", text
    )


def test_a_model_is_written_whole_or_not_at_all(annotations, detections, tmp_path, monkeypatch):
    folder = write_results(tmp_path / "theirs", detections)
    store = tmp_path / "store"
    import_detections(folder, annotations, store, "first")

    class Killed(BaseException):
        pass

    def killed(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "write_json", killed)
        patch.setattr(blocks.shutil, "rmtree", lambda *args, **options: None)  # a kill leaves what is there
        with pytest.raises(Killed):
            import_detections(folder, annotations, store, "second")
    left = [path for path in store.iterdir() if path.name.startswith(".")]
    assert [path.name for path in left[0].iterdir()] == ["unit-000000.parquet"]
    assert list(Store.open(store).models()) == ["first"]
    import_detections(folder, annotations, store, "second")
    assert list(Store.open(store).models()) == ["first", "second"]
    assert not [path for path in store.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "coco-results"], "--format coco-results without --ann"),
        (["--format", "text", "--ann", "x.json"], "--format text with --ann"),
        (["--format", "coco-results", "--ann", "x.json", "--dataset", "imagenet"], "got --dataset"),
        (["b", "--format", "coco-results", "--ann", "x.json"], "got 2 of them"),
    ],
)
def test_options_that_do_not_fit_the_format(options, message, tmp_path, capsys):
    assert main(["import", "a", *options, "--store", str(tmp_path / "store")]) != 0
    assert message in " ".join(capsys.readouterr().err.split())
