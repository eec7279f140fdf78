"""From stores to numbers: the right ones, of the right models, or a clear refusal."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from coco_summary import summaries
from report_stores import CORRUPTIONS, SEVERITIES, classifier_answers, classifier_store, detector_store

from dtn_det.corruptions.catalog import BENCHMARK
from dtn_det.corruptions.cells import sweep_cells
from dtn_det.errors import ReportError, StoreError
from dtn_det.metrics import calibration, mean_corruption_error, mean_error, mean_performance_under_corruption
from dtn_det.metrics.error_costs import ERROR_METRICS
from dtn_det.metrics.resampling import image_counts
from dtn_det.metrics.selective import selective_metrics
from dtn_det.reports import detection
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.contents import SELECTIVE
from dtn_det.reports.formats.flat import flat_numbers
from dtn_det.reports.measures import measures_of
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.page.tables import calibration_views
from dtn_det.reports.sources import find_pairs, parse_pairs
from dtn_det.reports.tables.summary import calibration_table
from dtn_det.robustness.importing import Imported, ImportSource, write_imported
from dtn_det.robustness.store import Store

QUICK = ReportOptions(replicates=50)


def number(report, model, name, scope="", severity=0, which="benchmark", section=0):
    rows = report.sections[section].numbers
    found = rows[
        (rows["model"] == model)
        & (rows["name"] == name)
        & (rows["scope"] == scope)
        & (rows["severity"] == severity)
        & (rows["set"] == which)
    ]
    assert len(found) == 1, (model, name, scope, severity, len(found))
    return found.iloc[0]


def error_table(seed, images=40):
    cells = sweep_cells(CORRUPTIONS, SEVERITIES)
    wrong = 1 - classifier_answers(seed, images, cells)["correct"].mean(0)
    return pd.DataFrame(cells, columns=["corruption", "severity"]).assign(error=wrong)


def test_numbers_of_classifiers_are_those_of_the_metrics(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"ln": 0, "dtn": 1})
    report = collect([store], replace(QUICK, baseline="ln"))
    wanted = mean_corruption_error(error_table(1), error_table(0), allow_partial=True)
    mce = number(report, "dtn", "mCE")
    assert mce.value == pytest.approx(wanted.value)
    assert mce.low < mce.value < mce.high
    assert (mce.cells, mce.expected_cells) == (6, 75)
    assert number(report, "ln", "mCE").value == pytest.approx(100)
    extra = mean_error(error_table(1), corruptions="extra", allow_partial=True)
    assert number(report, "dtn", "mean error", which="extra").value == pytest.approx(100 * extra.value)
    assert number(report, "dtn", "mean error", severity=3).expected_cells == 15
    assert number(report, "dtn", "error", "clean").value == pytest.approx(100 * error_table(1)["error"][0])
    assert number(report, "dtn", "mean error", "fog").cells == 3
    # No number twice.
    keys = ["model", "set", "name", "scope", "severity"]
    assert not report.sections[0].numbers.duplicated(keys).any()
    assert not report.sections[0].differences.duplicated(["first", "second", *keys[1:]]).any()


def test_calibration_of_classifiers_is_that_of_the_metrics(tmp_path: Path) -> None:
    report = collect([classifier_store(tmp_path / "store", {"net": 0})], QUICK)
    cells = sweep_cells(CORRUPTIONS, SEVERITIES)
    answers = classifier_answers(0, 40, cells)
    frame = pd.DataFrame({key: column.reshape(-1) for key, column in answers.items()})
    frame["corruption"] = [cells[cell][0] for cell in frame["cell"]]
    frame["severity"] = [cells[cell][1] for cell in frame["cell"]]
    for row in calibration(frame).itertuples():
        which = "extra" if row.corruption == "speckle_noise" else "benchmark"
        for name, value in (("ECE", 100 * row.ece), ("NLL", row.nll), ("Brier", row.brier)):
            found = number(report, "net", name, row.corruption, row.severity, which)
            assert found.value == pytest.approx(value, rel=1e-6)
            assert found.low < found.high
    # The same images drawn by hand.
    (drawn,) = image_counts(40, 50, 0, 50)
    fog = cells.index(("fog", 5))
    tables = [
        calibration(frame[frame["cell"] == fog].set_index("image").loc[np.repeat(np.arange(40), counts)])
        for counts in drawn
    ]
    for name, column, scale in (("ECE", "ece", 100), ("NLL", "nll", 1), ("Brier", "brier", 1)):
        low, high = np.quantile([scale * table[column].item() for table in tables], (0.025, 0.975))
        found = number(report, "net", name, "fog", 5)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-5)
    wrong = [1 - answers["correct_top5"][np.repeat(np.arange(40), counts), fog].mean() for counts in drawn]
    found = number(report, "net", "top-5 error", "fog", 5)
    assert (found.low, found.high) == pytest.approx(tuple(100 * np.quantile(wrong, (0.025, 0.975))))
    bins = report.sections[0].reliability
    clean = bins[bins["images"] == "clean"]
    assert clean["count"].sum() == 40
    hit = answers["correct"][:, 1:]
    corrupted = bins[bins["images"] == "corrupted"].fillna(0)
    assert corrupted["count"].sum() == hit.size
    assert (corrupted["accuracy"] * corrupted["count"]).sum() == pytest.approx(hit.sum())


@pytest.mark.parametrize("options", [QUICK, replace(QUICK, selective=True), replace(QUICK, replicates=0)])
def test_selective_classification_is_of_the_clean_images_unless_all_are_wanted(
    tmp_path: Path, options: ReportOptions
) -> None:
    report = collect([classifier_store(tmp_path / "store", {"net": 0})], options)
    answers = classifier_answers(0, 40, sweep_cells(CORRUPTIONS, SEVERITIES))
    cells = sweep_cells(CORRUPTIONS, SEVERITIES)
    each = [
        selective_metrics(answers["confidence"][:, cell], answers["correct"][:, cell]) for cell in range(len(cells))
    ]
    names = {name for name in report.sections[0].numbers["name"] if "coverage" in name or "AURC" in name}
    assert names & {"mean AURC", "mean coverage at 5 % risk"} == (
        {"mean AURC", "mean coverage at 5 % risk"} if options.selective else set()
    )
    for metric, name in SELECTIVE.items():
        found = number(report, "net", name, "clean")
        assert found.value == pytest.approx(100 * each[0][metric])
        assert (found.low < found.high) == bool(options.replicates)
        if options.selective:
            own = [one[metric] for cell, one in zip(cells, each, strict=True) if cell[0] in BENCHMARK]
            mean = number(report, "net", f"mean {name}")
            assert mean.value == pytest.approx(100 * np.mean(own))
            assert mean.low < mean.value < mean.high
    numbers = Numbers.of(report, report.sections[0])
    table = calibration_table(numbers, "benchmark")
    assert [group.title for group in table.groups] == ["Clean images", "Mean over corruptions"][: 1 + options.selective]
    assert [column.heading for column in table.columns] == ["ECE", *SELECTIVE.values()]
    assert table.groups[0].rows[0].cells[2].value == number(report, "net", "AURC", "clean").value
    assert "AURC" not in {measure.name for measure in measures_of(numbers)} or options.selective
    assert flat_numbers(report, "net")["clean-coverage-at-5-risk"] == pytest.approx(100 * each[0]["coverage_at_risk"])
    assert calibration_views([numbers])[0].title == "Classification: calibration and selective classification"


def test_differences_are_second_minus_first(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"swin-t": 0, "dtn-swin-t": 6})
    report = collect([store], QUICK)
    assert report.sections[0].pairs == (("swin-t", "dtn-swin-t"),)
    assert [model.name for model in report.models] == ["swin-t", "dtn-swin-t"]
    assert [model.name for model in collect([store], replace(QUICK, models=["dtn-swin-t", "swin-t"])).models] == [
        "dtn-swin-t",
        "swin-t",
    ]
    rows = report.sections[0].differences
    change = rows[(rows["name"] == "mean error") & (rows["scope"] == "") & (rows["severity"] == 0)]
    change = change[change["set"] == "benchmark"].iloc[0]
    assert change.value == pytest.approx(
        number(report, "dtn-swin-t", "mean error").value - number(report, "swin-t", "mean error").value
    )
    assert change.high < 0
    assert 0 < change.p_value < 0.05


def test_no_intervals_on_demand(tmp_path: Path) -> None:
    report = collect([classifier_store(tmp_path / "store", {"a": 0, "b": 1})], replace(QUICK, replicates=0))
    assert report.sections[0].numbers["low"].isna().all()
    assert report.sections[0].differences.empty
    assert "no records" in report.remarks[-1]


def test_unfinished_and_bad_images_are_told(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"a": 0}, units=[0, 2], bad=[3])
    classifier_store(store, {"b": 1}, bad=[3])
    report = collect([store], QUICK)
    assert report.model("a").partial == "2 of 3 units of images, 1 bad image left out"
    assert report.model("b").partial == "1 bad image left out"
    assert report.model("b").bad_images == 1
    assert report.remarks[:2] == (
        "a: partial (2 of 3 units of images, 1 bad image left out)",
        "b: partial (1 bad image left out)",
    )
    assert "b and a: no difference, they were evaluated on other images (23 and 39)" in report.remarks


def test_a_limited_sweep_is_partial(tmp_path: Path) -> None:
    report = collect([classifier_store(tmp_path / "s", {"a": 0}, selection="limit=40 of 50 seed=0")], QUICK)
    assert report.model("a").partial == "limit=40 of 50 seed=0"
    assert report.provenance.selection == "limit=40 of 50 seed=0"


def test_a_baseline_without_errors_is_told(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"a": 0, "perfect": 100})
    report = collect([store], replace(QUICK, baseline="perfect"))
    assert not (report.sections[0].numbers["name"] == "mCE").any()
    assert any("the baseline makes no error there" in text for text in report.remarks)
    assert number(report, "a", "mean error").value > 0


def test_numbers_of_detectors_are_those_of_coco(tmp_path: Path) -> None:
    store = detector_store(tmp_path / "store", {"LN": 0, "DTN": 3}, masks=True)
    report = collect([store], replace(QUICK, replicates=20))
    assert [section.kind for section in report.sections] == ["bbox", "segm"]
    frames = summaries(Store.open(store).model("DTN"))
    for section, kind in enumerate(("bbox", "segm")):
        wanted = mean_performance_under_corruption(frames[kind], allow_partial=True).value
        found = number(report, "DTN", "mPC AP", section=section)
        assert found.value == pytest.approx(100 * wanted)
        assert found.low <= found.value <= found.high
        assert number(report, "DTN", "P AP", section=section).value == pytest.approx(100 * frames[kind]["AP"][0])
        assert report.sections[section].pairs == (("LN", "DTN"),)
        # All objects are of medium size.
        assert not report.sections[section].numbers["name"].str.contains("APs").any()
    plain = collect([store], replace(QUICK, replicates=0))
    assert number(plain, "DTN", "rPC AP").value == pytest.approx(number(report, "DTN", "rPC AP").value)


def test_a_detector_that_finds_nothing_on_clean_images(tmp_path: Path) -> None:
    store = detector_store(tmp_path / "store", {"LN": 0, "DTN": 3})
    model = Store.open(store).model("LN")
    for unit in list(model.finished()):
        rows = model.read(unit).to_pylist()
        for row in rows:
            if row["cell"] == 0:
                row.update(boxes=[], scores=[], labels=[])
        model.write(unit, pa.Table.from_pylist(rows, schema=model.read(unit).schema))
    report = collect([store], replace(QUICK, replicates=20))
    assert number(report, "LN", "mPC AP").value > 0
    assert number(report, "LN", "P AP").value == number(report, "LN", "AP", "clean").value == 0
    (told,) = [remark for remark in report.remarks if "rPC" in remark]
    assert told.startswith("Boxes: LN: AP, AP50, AP75, ")
    assert told.endswith(" are 0 on clean images, so that rPC is undefined")
    assert not report.sections[0].numbers.query("model == 'LN'")["name"].str.startswith("rPC").any()
    assert number(report, "DTN", "rPC AP").value > 0
    assert "mPC AP" in report.sections[0].differences["name"].to_list()


def test_processes_give_the_numbers_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = detector_store(tmp_path / "store", {"ln": 0, "dtn": 2}, masks=True, bad=(3,))
    alone = collect([store], replace(QUICK, replicates=10, errors=True))
    assert alone.sections[1].numbers["name"].isin(ERROR_METRICS).any()
    monkeypatch.setattr(detection, "_PROCESS_WORK", 0)
    begun: list[str] = []
    together = collect([store], replace(QUICK, replicates=10, processes=2, errors=True), begun.append)
    assert begun == ["ln", "dtn"]
    for one, other in zip(alone.sections, together.sections, strict=True):
        pd.testing.assert_frame_equal(one.numbers, other.numbers)
        pd.testing.assert_frame_equal(one.differences, other.differences)


def test_damaged_records_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = detector_store(tmp_path / "store", {"ln": 0})
    monkeypatch.setattr(detection, "bad_images", lambda model: {})
    unit = next(store.glob("models/*/unit-000001.parquet"))
    unit.write_bytes(unit.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"expected records in .*unit-000001.parquet"):
        collect([store], QUICK)


def test_a_process_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = detector_store(tmp_path / "store", {"ln": 0})
    monkeypatch.setattr(detection, "_PROCESS_WORK", 0)
    monkeypatch.setattr(detection, "_numbers_of_cells", _die)
    with pytest.raises(ChildProcessError, match=r"one that died .* free some of it and start again"):
        collect([store], replace(QUICK, processes=2))


def _die(work: object) -> None:
    os._exit(3)


def test_detectors_that_have_begun(tmp_path: Path) -> None:
    store = detector_store(tmp_path / "store", {"net": 0}, units=[0, 1], bad=[2])
    report = collect([store], replace(QUICK, replicates=5))
    assert report.model("net").partial == "2 of 3 units of images, 1 bad image left out"
    only_bad = detector_store(tmp_path / "bad", {"net": 0}, bad=range(24))
    with pytest.raises(StoreError, match="expected images that 'net' has evaluated, got none"):
        collect([only_bad], QUICK)


def test_imported_results_stand_beside_measured_ones(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"net": 0})
    means = pd.DataFrame({"corruption": ["gaussian_noise", "fog"], "severity": pd.array([pd.NA, pd.NA], "Int8")})
    theirs = Imported("old", "classification", ImportSource({"a.csv": "1"}, "text"), {"top1": means.assign(error=0.5)})
    write_imported(store, theirs)
    report = collect([store], replace(QUICK, baseline="old"))
    assert report.model("old").origin == "imported"
    assert report.model("old").source == "text: a.csv"
    old = report.sections[0].numbers.query("model == 'old'")
    assert (old["severity"] == 0).all()
    assert number(report, "old", "mean error").value == pytest.approx(50)
    assert number(report, "old", "mCE").value == pytest.approx(100)
    ours = number(report, "net", "CE", "fog")
    assert ours.value == pytest.approx(100 * error_table(0).query("corruption == 'fog'")["error"].mean() / 0.5)
    assert ours.low < ours.value < ours.high
    assert report.sections[0].differences.empty


def test_labels_tell_models_of_one_name_apart(tmp_path: Path) -> None:
    first, second = (classifier_store(tmp_path / name, {"net": seed}) for seed, name in enumerate("ab"))
    with pytest.raises(ReportError, match=r"expected models of different names, got 'net' in .*a and in .*b: tell"):
        collect([first, second])
    report = collect([f"x={first}", f"y={second}"], QUICK)
    assert [model.name for model in report.models] == ["x/net", "y/net"]
    assert not report.sections[0].differences.empty


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("data_hash", "other", r"data set: both are called pictures \(40 images\), and their files or labels differ"),
        ("data", "photos", r"data set: pictures \(40 images\) and photos \(40 images\)"),
        ("selection", "limit=40 of 50 seed=0", "selection: all and limit=40 of 50 seed=0"),
        ("corruption", "cifar-c seed=1", "corruption: .* and cifar-c seed=1"),
        ("protocol", {"classes": "folder", "num_classes": "100"}, "num_classes: 10 and 100"),
    ],
)
def test_stores_that_do_not_go_together(tmp_path: Path, field: str, value: object, told: str) -> None:
    first = classifier_store(tmp_path / "a", {"one": 0})
    other_hash = {"data_hash": "other"} if field in ("data", "selection") else {}
    second = classifier_store(tmp_path / "b", {"two": 0}, **{field: value, **other_hash})
    with pytest.raises(ReportError, match=rf"expected stores of the same images and corruptions(.|\n)*{told}"):
        collect([first, second])


def test_stores_whose_annotations_alone_differ_say_how_to_bring_them_together(tmp_path: Path) -> None:
    first, second = (detector_store(tmp_path / name, {name: 0}) for name in ("a", "b"))
    for folder, changes in ((first, {}), (second, {"data_hash": "new"})):
        file = folder / "store.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "images_hash": "same", **changes}))
    told = r"annotations: boxes \(24 images\) had others when .*\nrun the `dtn-det mpc` command of the store whose anno"
    with pytest.raises(ReportError, match=told):
        collect([first, second])
    content = json.loads((second / "store.json").read_text())
    content["earlier_data_hashes"] = [json.loads((first / "store.json").read_text())["data_hash"]]
    (second / "store.json").write_text(json.dumps(content))
    for order in ((first, second), (second, first)):
        with pytest.raises(ReportError, match=rf"run the `dtn-det mpc` command of {first} again: it takes"):
            collect(order)


def test_one_selection_by_two_names_is_one(tmp_path: Path) -> None:
    first = classifier_store(tmp_path / "a", {"one": 0})
    second = classifier_store(tmp_path / "b", {"two": 0}, selection="limit=40 of 50 seed=0")
    assert len(collect([first, second], QUICK).models) == 2


def test_tasks_are_not_mixed(tmp_path: Path) -> None:
    first, second = classifier_store(tmp_path / "a", {"one": 0}), detector_store(tmp_path / "b", {"two": 0})
    with pytest.raises(ReportError, match=r"got classification \(one\) and detection \(two\)"):
        collect([first, second])


def test_errors_of_stores(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="expected at least one folder with results, got none"):
        collect([])
    with pytest.raises(StoreError, match="expected a store of results"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(ReportError, match="expected FOLDER or LABEL=FOLDER, got '=x'"):
        collect(["=x"])
    empty = classifier_store(tmp_path / "empty", {"net": 0}, units=[])
    with pytest.raises(ReportError, match="got a store without a finished model"):
        collect([empty])
    all_bad = classifier_store(tmp_path / "bad", {"net": 0}, bad=range(40))
    with pytest.raises(StoreError, match=r"expected records of 'net' in .*, got none"):
        collect([all_bad])
    twice = classifier_store(tmp_path / "twice", {"net": 0})
    model = Store.open(twice).model("net")
    model.write(0, model.read(0).slice(1))
    with pytest.raises(StoreError, match=r"expected records in .*unit-000000.parquet, got: 1 rows that are"):
        collect([twice])


def test_errors_of_options(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"a": 0, "b": 1})
    for options, told in (
        (ReportOptions(models=["c"]), "expected --models out of a, b, got c"),
        (ReportOptions(models=["a", "a"]), "expected each of --models once, got a, a"),
        (ReportOptions(baseline="alexnet"), "expected another --baseline than alexnet, .* got classes by folder"),
        (ReportOptions(pairs=["a:c"]), "expected --pairs FIRST:SECOND with two models out of a, b, got 'a:c'"),
        (ReportOptions(replicates=-1), "expected at least 0 replicates"),
        (ReportOptions(level=1.0), "a level between 0 and 1, got 1000, 0 and 1.0"),
    ):
        with pytest.raises(ReportError, match=told):
            collect([store], options)
    detectors = detector_store(tmp_path / "boxes", {"a": 0})
    with pytest.raises(ReportError, match="expected --baseline out of a, got 'alexnet'"):
        collect([detectors], ReportOptions(baseline="alexnet"))


def test_alexnet_divides_the_errors_on_imagenet_c(tmp_path: Path) -> None:
    store = classifier_store(
        tmp_path / "store",
        {"net": 0},
        corruption="imagenet-c jpeg85 rgb seed=0 frost=procedural engine=1",
        protocol={"classes": "imagenet", "num_classes": "1000"},
    )
    report = collect([store], QUICK)
    assert report.baseline == "alexnet"
    wanted = mean_corruption_error(error_table(0), allow_partial=True).value
    assert number(report, "net", "mCE").value == pytest.approx(wanted)
    with pytest.raises(KeyError, match="expected a model out of net, got 'other'"):
        report.model("other")


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["ln", "dtn"], [("ln", "dtn")]),
        (["DTN-s0", "LN-s0", "LN-s1", "DTN-s1"], [("LN-s0", "DTN-s0"), ("LN-s1", "DTN-s1")]),
        (["swin-t", "dtn-swin-t", "resnet50"], [("swin-t", "dtn-swin-t")]),
        (["vit_small", "dtn_vit_small"], [("vit_small", "dtn_vit_small")]),
        (["a", "b", "c"], [("a", "b"), ("a", "c")]),
        (["dtnet", "alnico"], [("dtnet", "alnico")]),
        (["only"], []),
    ],
)
def test_pairs_are_found_by_name(names: list[str], pairs: list[tuple[str, str]]) -> None:
    assert list(find_pairs(names)) == pairs


def test_pairs_against_the_baseline() -> None:
    assert find_pairs(["a", "b", "c"], "b") == (("b", "a"), ("b", "c"))


def test_pairs_of_names_with_colons() -> None:
    names = ["timm:a", "timm:b"]
    assert parse_pairs(["timm:a:timm:b"], names) == (("timm:a", "timm:b"),)
    with pytest.raises(ReportError, match="expected --pairs"):
        parse_pairs(["timm:a:timm:a"], names)


def test_reports_have_no_relative_numbers_of_models_that_guess(tmp_path: Path) -> None:
    # Of two classes, half of the answers are right by guessing, and of 40 images 29 may be.
    protocol = {"classes": "folder", "num_classes": "2"}
    store = classifier_store(tmp_path / "store", {"bad": 0, "good": 9}, protocol=protocol)
    report = collect([store], ReportOptions(baseline="good", replicates=0, pairs=()))
    numbers = report.sections[0].numbers
    relative = numbers[numbers["name"].str.contains("relative")]
    assert set(relative["model"]) == {"good"}
    assert any("no relative mCE: with a clean error of" in text for text in report.remarks)
    assert any("bad is no better than chance" in text for text in report.remarks)
