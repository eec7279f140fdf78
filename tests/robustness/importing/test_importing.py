from __future__ import annotations

import json
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")


from dtn_det.cli.main import main
from dtn_det.corruptions import ALL
from dtn_det.errors import StoreError, UnsafePickleError
from dtn_det.metrics import mean_corruption_error, mean_performance_under_corruption
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.page import render_page
from dtn_det.reports.tables import report_tables
from dtn_det.robustness.importing import (
    COCO_DETECTIONS,
    MMDET_DETECTIONS,
    MMDET_RULE,
    read_imported,
    write_imported,
)
from dtn_det.robustness.importing import read as importing_read
from dtn_det.robustness.importing.read import import_files, read_plain_pickle


@pytest.fixture
def published(shared_dir) -> Path:
    return shared_dir / "data/published_results"


def mmdet_results(value=np.float64) -> OrderedDict:
    """As test_robustness.py of MMDetection 3 writes them, clean images in every entry."""
    return OrderedDict(
        (
            name,
            {
                severity: {
                    "coco/bbox_mAP": value(0.4 - 0.01 * severity),
                    "coco/bbox_mAP_50": value(0.5),
                    "coco/bbox_mAP_copypaste": "0.4 0.5",
                    "coco/segm_mAP_s": value(-1.0),
                }
                for severity in range(6)
            },
        )
        for name in ALL
    )


def write_pickle(path: Path, content: object, protocol: int = pickle.HIGHEST_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def test_robustbench_gives_its_own_mce(published, tmp_path, capsys):
    files = sorted((published / "robustbench_imagenet").iterdir())
    assert main(["import", *map(str, files), "--store", str(tmp_path), "--format", "robustbench"]) == 0
    assert "Standard_R50: 76 rows of top1" in capsys.readouterr().out
    found = read_imported(tmp_path)
    baseline = found["AlexNet"].frames["top1"]
    for name, results in found.items():
        expected = json.loads((published / f"robustbench_imagenet/{name}.json").read_text())["corruptions_mce"]
        mce = mean_corruption_error(results.frames["top1"], baseline=baseline).value
        assert mce == pytest.approx(float(expected), abs=0.01)
        assert set(results.source.files) == {file.name for file in files}


def test_mmdetections_published_detectors_give_their_mpc(published, tmp_path):
    files = sorted((published / "detection_c/coco").glob("*.json"))
    for results in import_files(files, "mmdet"):
        write_imported(tmp_path, results)
    found = read_imported(tmp_path)
    frame = found["faster_rcnn_r50_fpn_1x_coco"].frames["bbox"]
    assert mean_performance_under_corruption(frame).value == pytest.approx(0.1820, abs=1e-4)
    assert set(found["mask_rcnn_r50_fpn_1x_coco"].frames) == {"bbox", "segm"}


def test_game_of_noise_text_gives_means_over_severities(published, tmp_path):
    (results,) = import_files([published / "game_of_noise/clean_results.txt"], "text", "resnet50")
    write_imported(tmp_path, results)
    found = read_imported(tmp_path)["resnet50"]
    assert found.source.severity_means
    frame = found.frames["top1"].set_index("corruption")
    assert frame.loc["clean", "severity"] == 0
    assert frame.loc["jpeg_compression", "error"] == pytest.approx(1 - 0.5341)
    assert frame.loc["fog", "top5_error"] == pytest.approx(1 - 0.6902)
    assert frame["severity"].isna().sum() == 15


def test_the_output_of_hendrycks_script(tmp_path):
    text = tmp_path / "resnet.txt"
    text.write_text(
        "Clean dataset error (%): 23.85\n\nUsing ImageNet data\n\n"
        "=Average (np.float64(0.4), np.float64(0.5), 0.6, 0.7, 8e-1)\n"
        "Distortion: gaussian_noise   | CE (unnormalized) (%): 60.00\n"
        "Distortion: fog              | CE (unnormalized) (%): 50.25\n"
        "Distortion: style            | CE (unnormalized) (%): 50.00\n"
        "mCE (unnormalized by AlexNet errors) (%): 53.42\n"
    )
    (results,) = import_files([text], "text")
    frame = results.frames["top1"]
    assert frame["corruption"].tolist() == ["clean", *["gaussian_noise"] * 5, "fog"]
    assert frame["severity"].fillna(-1).tolist() == [0, 1, 2, 3, 4, 5, -1]
    assert frame["error"].tolist() == pytest.approx([0.2385, 0.4, 0.5, 0.6, 0.7, 0.8, 0.5025])
    assert results.source.left_out == ("style",)
    text.write_text("=Average (0.1, 0.2)\nDistortion: fog  | CE (unnormalized) (%): 15.00\n")
    with pytest.raises(ValueError, match=r"expected 5 errors with the mean 15\.0 % of fog"):
        import_files([text], "text")


@pytest.mark.parametrize("value", [float, np.float64, np.float32])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_of_mmdetection(value, protocol, tmp_path):
    file = write_pickle(tmp_path / "out_results.pkl", mmdet_results(value), protocol)
    (results,) = import_files([file], "mmdet", "mine")
    frame = results.frames["bbox"]
    assert len(frame) == 1 + 5 * len(ALL)
    fog = frame[(frame["corruption"] == "fog") & (frame["severity"] == 3)]
    assert fog[["AP", "AP50"]].to_numpy().tolist() == [pytest.approx([0.37, 0.5])]
    assert (results.frames["segm"]["APs"] == -1).all()


@pytest.mark.parametrize("small", [-1.0, 0.1])
def test_a_report_of_a_kind_without_ap(small, tmp_path):
    content = mmdet_results(float)
    for cells in content.values():
        for metrics in cells.values():
            metrics["coco/segm_mAP_s"] = small
    file = write_pickle(tmp_path / "mine_results.pkl", content)
    assert main(["import", str(file), "--store", str(tmp_path / "store"), "--format", "mmdet"]) == 0
    report = collect([tmp_path / "store"])
    tables = {table.title: table for table in report_tables(report)}
    assert "Boxes: summary" in tables
    assert render_page(report)
    if small > 0:
        (row,) = tables["Masks: summary"].rows
        assert [column.heading for column in tables["Masks: summary"].columns] == ["P APs", "mPC APs", "rPC APs"]
        assert [cell.value for cell in row.cells] == pytest.approx([10, 10, 100])
    else:
        assert "Masks: summary" not in tables
        assert any("left out, for every average precision is undefined (-1)" in text for text in report.remarks)


def test_a_report_of_no_ap_at_all_says_so(tmp_path, capsys):
    content = mmdet_results(float)
    for cells in content.values():
        for severity in cells:
            cells[severity] = {"coco/segm_mAP_s": -1.0}
    file = write_pickle(tmp_path / "mine_results.pkl", content)
    assert main(["import", str(file), "--store", str(tmp_path / "store"), "--format", "mmdet"]) == 0
    assert main(["report", str(tmp_path / "store"), "--out", str(tmp_path / "report")]) == 1
    err = capsys.readouterr().err
    assert "expected an average precision of mine_results, got none, or -1 in every cell" in " ".join(err.split())


def test_a_cell_without_metrics_is_one_without_detections(tmp_path, capsys):
    """CocoMetric of MMDetection ends without metrics where a detector finds nothing; AP is 0 there."""
    content = mmdet_results(float)
    content["fog"][5] = {}
    file = write_pickle(tmp_path / "weak_results.pkl", content)
    assert main(["import", str(file), "--store", str(tmp_path / "store"), "--format", "mmdet"]) == 0
    out = capsys.readouterr().out
    assert "weak_results.pkl: 1 cell holds no metrics" in out
    assert "has AP 0 (fog 5)" in out
    results = read_imported(tmp_path / "store")["weak_results"]
    boxes, masks = (results.frames[kind].set_index(["corruption", "severity"]) for kind in ("bbox", "segm"))
    assert boxes.loc[("fog", 5), ["AP", "AP50"]].tolist() == [0, 0]
    # There are no small objects in the data.
    assert masks.loc[("fog", 5), "APs"] == -1
    fog = [0.4 - 0.01 * severity for severity in range(1, 5)]
    others = [sum([*fog, 0.35]) / 5] * 14
    expected = (sum(others) + sum(fog) / 5) / 15
    assert mean_performance_under_corruption(results.frames["bbox"]).value == pytest.approx(expected)
    (remark,) = results.source.remarks
    assert (remark.kind, remark.count, remark.examples) == ("no_detections", 1, ("fog 5",))


def test_a_list_is_no_result_of_mmdetections_script(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(
        ValueError, match=r"in .*a\.json \(corruption, severity, COCO metrics\), got a list: check that"
    ):
        import_files([tmp_path / "a.json"], "mmdet")


def test_cells_that_contradict_each_other_or_hold_no_metrics_are_named(tmp_path):
    content = mmdet_results(float)
    content["fog"][0] = {}
    with pytest.raises(ValueError, match=r"expected one result for clean 0 in .*, got two that differ"):
        import_files([write_pickle(tmp_path / "a.pkl", content)], "mmdet")
    content = mmdet_results(float)
    for values in (None, [1, 2], {"coco/bbox_mAP": "none"}, {"coco/AR": 0.5}):
        content["fog"][3] = values
        with pytest.raises(ValueError, match=r"got .* at fog 3: check that it is the `_results` file"):
            import_files([write_pickle(tmp_path / "a.pkl", content)], "mmdet")
    everything = {name: {severity: {} for severity in range(6)} for name in ALL}
    with pytest.raises(ValueError, match=r"expected results under corruptions in a\.pkl, got none"):
        import_files([write_pickle(tmp_path / "a.pkl", everything)], "mmdet")


def test_imported_metrics_carry_the_rule_that_they_are_made_by(published, tmp_path, capsys):
    """MMDetection 3 takes AP at 100 detections and the others at 1,000, its first version all at 100, as COCO does."""
    new = write_pickle(tmp_path / "new.pkl", mmdet_results(float))
    old = published / "detection_c/coco/faster_rcnn_r50_fpn_1x_coco.json"
    assert main(["import", str(new), str(old), "--store", str(tmp_path / "store"), "--format", "mmdet"]) == 0
    out = capsys.readouterr().out
    assert out.count("COCO's rule, which dtn-det mpc follows, takes 100 for all") == 1
    assert "note: new: by MMDetection's rule" in out
    found = read_imported(tmp_path / "store")
    assert found["new"].source.detections == MMDET_DETECTIONS
    assert found["faster_rcnn_r50_fpn_1x_coco"].source.detections == COCO_DETECTIONS
    report = collect([tmp_path / "store"], ReportOptions(replicates=0))
    assert [text for text in report.remarks if "MMDetection's rule" in text] == [f"new: {MMDET_RULE}"]
    assert dict(report.model("new").settings) == {"best detections of a class": "AP 100, others 1000"}


def test_results_of_an_earlier_version_stay_readable(tmp_path):
    (results,) = import_files([write_pickle(tmp_path / "a.pkl", mmdet_results(float))], "mmdet")
    path = write_imported(tmp_path / "store", results)
    values = json.loads(path.read_text())
    for key in ("detections", "remarks"):
        del values["source"][key]
    path.write_text(json.dumps(values))
    source = read_imported(tmp_path / "store")["a"].source
    assert (source.detections, source.remarks) == ("", ())
    write_imported(tmp_path / "store", results)
    assert read_imported(tmp_path / "store")["a"].source == results.source


def test_pickles_of_an_old_numpy_and_arrays(tmp_path):
    content = {"a": np.arange(6, dtype=">i4").reshape(2, 3), "b": [np.float32(1.5)]}
    for protocol in (0, 2, 4):
        data = pickle.dumps(content, protocol=protocol).replace(b"numpy._core", b"numpy.core")
        file = tmp_path / "old.pkl"
        if protocol < 4:  # later ones tell the length of a name
            file.write_bytes(data)
            assert read_plain_pickle(file) == {"a": [0, 1, 2, 3, 4, 5], "b": [1.5]}
    assert read_plain_pickle(write_pickle(tmp_path / "new.pkl", content)) == {"a": [0, 1, 2, 3, 4, 5], "b": [1.5]}


class Runs:
    def __init__(self, function, *arguments):
        self.what = (function, arguments)

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(protocol, tmp_path):
    trace = tmp_path / "trace"
    for attack in (
        Runs(subprocess.check_call, ["touch", str(trace)]),
        Runs(eval, f"open({str(trace)!r}, 'w')"),
        Runs(getattr, dict, "update"),
        Runs(np.array, [1]),
        Path("x"),
    ):
        file = write_pickle(tmp_path / "bad.pkl", {"fog": {1: attack}}, protocol)
        with pytest.raises(UnsafePickleError, match="nothing of it was run"):
            read_plain_pickle(file)
    assert not trace.exists()


def test_a_pickle_of_objects_in_arrays_is_refused(tmp_path):
    for content in (np.array([{}, None], dtype=object), np.array(["text"])):
        with pytest.raises(UnsafePickleError, match="which are no numbers"):
            read_plain_pickle(write_pickle(tmp_path / "bad.pkl", content))


def test_damaged_and_huge_pickles(tmp_path, monkeypatch):
    file = write_pickle(tmp_path / "cut.pkl", mmdet_results())
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ValueError, match="expected a pickle of results"):
        read_plain_pickle(file)
    file.write_bytes(b"no pickle")
    with pytest.raises(ValueError, match="expected a pickle of results"):
        read_plain_pickle(file)
    monkeypatch.setattr(importing_read, "_LARGEST", 4)
    with pytest.raises(ValueError, match="expected results of at most 0 MB"):
        read_plain_pickle(file)


def test_results_are_never_overwritten_by_others(tmp_path):
    file = write_pickle(tmp_path / "a.pkl", mmdet_results())
    (results,) = import_files([file], "mmdet", "mine")
    store = tmp_path / "store"
    write_imported(store, results)
    write_imported(store, results)
    other = mmdet_results()
    other["fog"][1]["coco/bbox_mAP"] = 0.1
    (changed,) = import_files([write_pickle(file, other)], "mmdet", "mine")
    with pytest.raises(StoreError, match="expected no other results called 'mine'"):
        write_imported(store, changed)
    assert read_imported(store)["mine"].frames["bbox"].equals(results.frames["bbox"])
    path = store / "aggregates/mine.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(StoreError, match="expected imported results of format 1"):
        read_imported(store)
    path.write_text("{")
    with pytest.raises(StoreError, match="got a damaged file"):
        read_imported(store)


def test_bad_files_of_results(tmp_path):
    def error(content: object, file_format: str, name: str | None = None) -> str:
        file = tmp_path / ("a.pkl" if file_format == "mmdet" else "a.csv")
        if file_format == "mmdet":
            write_pickle(file, content)
        else:
            file.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        with pytest.raises(ValueError, match="expected") as caught:
            import_files([file], file_format, name)
        return str(caught.value)

    clean = mmdet_results()
    clean["fog"][0]["coco/bbox_mAP"] = 0.9
    assert "expected one result for clean 0" in error(clean, "mmdet")
    assert "expected fractions" in error({"fog": {1: {"coco/bbox_mAP": 37.0}}}, "mmdet")
    assert "expected fractions" in error({"fog": {1: {"coco/bbox_mAP": float("nan")}}}, "mmdet")
    assert "expected severities 1 to 5" in error({"fog": {6: {"coco/bbox_mAP": 0.3}}}, "mmdet")
    assert "no bbox or segm metrics among pascal_voc/mAP" in error({"fog": {1: {"pascal_voc/mAP": 0.3}}}, "mmdet")
    assert "expected MMDetection's results" in error([1, 2], "mmdet")
    assert "got none: check --format" in error({"clean": {0: {"coco/bbox_mAP": 0.3}}}, "mmdet")
    assert "got none: check --format" in error("some text\n", "text")
    assert "expected text in" in error(b"\xff\xfe\x00", "text")
    table = ",fog,fog\n,1,2\nA,0.5,0.4\nB,0.5,0.4\n"
    assert "one of the models in the files, A, B" in error(table, "robustbench", "C")
    for content, got in [
        (",fog\n,1\nA,x\n", "got 'x' as accuracy in the row 'A': name another file, or another --format"),
        (",fog,fog\n,1,2\nA,0.5\n", "got 2 values for 3 columns in the row 'A'"),
        ("", "got 0 rows"),
        ("model,error\n", "got 1 row:"),
        ("model,corruption,error\nA,fog,0.5\nB,fog,0.4\n", "got 'fog' as severity in row 2"),
        (",fog\n,1.5\nA,0.5\n", "got '1.5' as severity in row 2"),
    ]:
        message = error(content, "robustbench")
        assert "expected RobustBench's unaggregated results" in message
        assert got in message
    assert "expected a format out of" in error("", "other")
    (tmp_path / "X.json").write_text('{"clean_acc": "70"}')
    with pytest.raises(ValueError, match="beside a CSV file with a row 'X'"):
        import_files([tmp_path / "X.json"], "robustbench")
    (tmp_path / "t.csv").write_text(table)
    (tmp_path / "A.json").write_text("{}")
    with pytest.raises(ValueError, match="expected RobustBench's model information"):
        import_files([tmp_path / "t.csv", tmp_path / "A.json"], "robustbench")
    with pytest.raises(ValueError, match="expected each model once, got 'A'"):
        import_files([tmp_path / "t.csv", tmp_path / "t.csv"], "robustbench")
    with pytest.raises(ValueError, match="expected files of different names"):
        import_files([tmp_path / "a.pkl", tmp_path / "a.pkl"], "mmdet")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        import_files([tmp_path / "none.pkl"], "mmdet")
    assert [one.name for one in import_files([tmp_path / "t.csv"], "robustbench", "B")] == ["B"]
