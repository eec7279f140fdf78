"""Two models compared: the right answer, on one screen, whatever way they are named."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import ALL, classification_report, detection_report, renamed
from report_stores import classifier_store, detector_store
from rich.console import Console

from dtn_det.cli.main import main
from dtn_det.corruptions.catalog import BENCHMARK, EXTRA
from dtn_det.errors import ReportError
from dtn_det.metrics.resampling import holm
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.compare import Comparison, Targets, compare, comparison_json, find_targets
from dtn_det.reports.formats.terminal import print_comparison, second_sentence, sentence
from dtn_det.reports.labels import title


@pytest.fixture(scope="module")
def detectors():
    return compare(detection_report(replicates=700), "ln", "dtn")


@pytest.fixture(scope="module")
def classifiers():
    return compare(classification_report(replicates=700, images=100), "ln", "dtn")


def screen(comparison: Comparison, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_comparison(console, comparison)
    return console.file.getvalue().splitlines()


def differences(report, name, scope):
    frame = report.sections[0].differences
    found = frame[
        (frame["name"] == name) & (frame["scope"] == scope) & (frame["severity"] == 0) & (frame["set"] == "benchmark")
    ]
    return found.iloc[0]


def test_the_numbers_are_those_of_the_report(detectors, classifiers):
    for comparison, main_name, clean, relative in (
        (detectors, "mPC AP", ("P AP", ""), "rPC AP"),
        (classifiers, "mCE", ("error", "clean"), "relative mCE"),
    ):
        for change, key in (
            (comparison.overall, (main_name, "")),
            (comparison.clean, clean),
            (comparison.relative, (relative, "")),
        ):
            wanted = differences(comparison.report, *key)
            assert change.value == wanted["value"]
            assert change.interval == (wanted["low"], wanted["high"])
            assert change.p_value == change.adjusted == wanted["p_value"]
            assert change.second - change.first == pytest.approx(change.value)
        assert {change.scope for change in comparison.corruptions} == set(BENCHMARK)
        p_values = [change.p_value for change in comparison.corruptions]
        assert [change.adjusted for change in comparison.corruptions] == pytest.approx(holm(p_values))
        assert len(comparison.groups) == 4


def test_the_greatest_gain_of_the_second_comes_first(detectors, classifiers):
    for changes in (detectors.groups, detectors.corruptions):
        assert [change.value for change in changes] == sorted((change.value for change in changes), reverse=True)
    for changes in (classifiers.groups, classifiers.corruptions):
        assert [change.value for change in changes] == sorted(change.value for change in changes)


def test_sentences(detectors, classifiers):
    better = sentence(detectors)
    assert better.startswith("dtn is better under corruption than ln: mPC +")
    assert better.endswith("p ≤ 0.003.")
    assert sentence(classifiers).startswith("dtn is better under corruption than ln: mCE −")  # noqa: RUF001
    worse = compare(detection_report(("dtn", "ln"), skills={"dtn": 0.4, "ln": 0.3}), "dtn", "ln")
    assert worse.verdict == "worse"
    assert sentence(worse).startswith("ln is worse under corruption than dtn: mPC −")  # noqa: RUF001
    alike = compare(detection_report(skills={"ln": 0.36, "dtn": 0.36}, images=20), "ln", "dtn")
    assert alike.verdict == "not shown"
    assert sentence(alike).startswith("No difference can be shown: mPC ")
    assert sentence(alike).endswith(" (dtn minus ln).")
    assert "= " in sentence(alike)
    untested = compare(classification_report(replicates=0), "ln", "dtn")
    assert untested.verdict == "untested"
    assert "nothing is tested" in sentence(untested)
    assert "p " not in second_sentence(untested)


def test_clean_performance_is_told_apart(detectors, classifiers):
    assert second_sentence(detectors).startswith("P (clean) +")
    assert "; rPC " in second_sentence(detectors)
    assert second_sentence(classifiers).startswith("Clean error ")
    assert "; relative mCE " in second_sentence(classifiers)
    bare = compare(classification_report(clean=False, baseline=None, images=20, replicates=20), "ln", "dtn")
    assert second_sentence(bare) == ""
    assert sentence(bare).split(": ")[1].startswith("mean error ")


def test_one_screen(detectors, classifiers):
    partial = {"ln": "limit=60 of 50000 seed=0", "dtn": "limit=60 of 50000 seed=0"}
    limited = compare(detection_report(corruptions=ALL, partial=partial), "ln", "dtn")
    for comparison in (detectors, classifiers, limited):
        lines = screen(comparison)
        # The 24th is the prompt's.
        assert len(lines) <= 23
        assert max(map(len, lines)) <= 80
        assert lines[0] == sentence(comparison)
        said = [line for line in lines if any(line.startswith(title(name)) for name in BENCHMARK)]
        assert len(said) == len(BENCHMARK)
    assert "60 images" in screen(detectors)[-1]
    assert screen(limited)[-1].startswith("partial (limit=60 of 50000 seed=0)")


def test_bars_point_to_the_better_model():
    report = detection_report(("ln", "dtn"), skills={"ln": 0.36, "dtn": 0.37}, images=40)
    comparison = compare(report, "ln", "dtn")
    lines = screen(comparison)
    head = lines[2]
    axis = head.index("│")
    assert head[:axis].rstrip().endswith("ln better")
    assert head[axis:].strip("│ ") == "dtn better"
    by_label = {line[:18].strip(): line for line in lines}
    longest = max(comparison.corruptions, key=lambda change: abs(change.value))
    for change in comparison.corruptions:
        line = by_label[change.label]
        assert line[axis] == "│"
        left, right = line[:axis].count("█"), line[axis:].count("█")
        assert (left == 0) if change.value > 0 else (right == 0)
        assert left + right <= 17
        if change is longest:
            assert left + right == 17
    # The same the other way round.
    turned = screen(compare(detection_report(skills={"ln": 0.36, "dtn": 0.37}, images=40, pairs=[("dtn", "ln")]),
                            "dtn", "ln"))  # fmt: skip
    mirrored = {line[:18].strip(): line for line in turned}[longest.label]
    assert mirrored[:axis].count("█") == 17 * (longest.value > 0)


def test_narrow_terminals_have_no_bars(detectors):
    assert max(map(len, screen(detectors, 50))) <= 50
    assert not any("█" in line for line in screen(detectors, 50))


def test_stars_are_of_the_adjusted_p_values():
    report = detection_report(skills={"ln": 0.36, "dtn": 0.37}, images=80, replicates=700)
    comparison = compare(report, "ln", "dtn")
    by_label = {line[:18].strip(): line for line in screen(comparison)}
    alone = [change for change in comparison.corruptions if change.p_value < 0.05 <= change.adjusted]
    assert alone
    for change in comparison.corruptions:
        assert ("*" in by_label[change.label]) == (change.adjusted < 0.05)


def test_names_are_shown_as_text():
    report = renamed(detection_report(images=20), {"ln": "[bold]a[/bold]\x1b[31m", "dtn": "<b>\nnew"})
    lines = screen(compare(report, "[bold]a[/bold]\x1b[31m", "<b>\nnew"), 200)
    assert "[bold]a[/bold]�[31m" in lines[0]
    assert "<b> new" in lines[0]
    assert not any("\x1b" in line for line in lines)


def test_the_extra_corruptions_are_compared_where_there_are_no_others():
    comparison = compare(detection_report(corruptions=EXTRA), "ln", "dtn")
    assert {change.scope for change in comparison.corruptions} == set(EXTRA)
    assert comparison.groups == ()
    assert {change.scope for change in compare(detection_report(corruptions=ALL), "ln", "dtn").corruptions} == {
        *BENCHMARK
    }


def test_other_metrics_and_masks():
    report = detection_report(images=20, kinds=("bbox", "segm"))
    boxes, masks = compare(report, "ln", "dtn", "AP50"), compare(report, "ln", "dtn", "AP50", "segm")
    assert (boxes.kind, masks.kind) == ("bbox", "segm")
    assert boxes.overall.name == masks.overall.name == "mPC AP50"
    assert boxes.overall.value != masks.overall.value
    assert sentence(boxes).split(": ")[1].startswith("mPC AP50 ")


def test_what_cannot_be_compared():
    report = detection_report(images=20, metrics=("AP",))
    with pytest.raises(ReportError, match="expected models out of ln, dtn, got 'other'"):
        compare(report, "ln", "other")
    with pytest.raises(ReportError, match="expected two models, got 'ln' twice"):
        compare(report, "ln", "ln")
    with pytest.raises(ReportError, match=r"expected --metric out of AP, AP50, .*, got 'AP90'"):
        compare(report, "ln", "dtn", "AP90")
    with pytest.raises(ReportError, match="expected --kind out of bbox, got 'segm'"):
        compare(report, "ln", "dtn", kind="segm")
    with pytest.raises(ReportError, match="expected AP50 of ln and dtn under corruptions, got none"):
        compare(report, "ln", "dtn", "AP50")


def test_json(classifiers):
    content = json.loads(comparison_json(classifiers))
    assert (content["format"], content["version"]) == ("dtn-det comparison", 1)
    assert (content["first"], content["second"], content["verdict"]) == ("ln", "dtn", "better")
    assert content["overall"]["value"] == classifiers.overall.value
    assert content["overall"]["interval"] == list(classifiers.overall.interval)
    assert content["corruptions"][0]["verdict"] == classifiers.verdict_on(classifiers.corruptions[0])
    assert content["provenance"]["corruption"].startswith("imagenet-c jpeg85")
    assert content["baseline"] == "ln"
    untested = json.loads(comparison_json(compare(classification_report(replicates=0), "ln", "dtn")))
    assert untested["overall"]["interval"] is None
    assert untested["overall"]["p_value"] is None


# Naming two models


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    classifier_store(folder / "two", {"dtn": 1, "ln": 0})
    classifier_store(folder / "three", {"a:b": 0, "ln": 0, "dtn": 1})
    classifier_store(folder / "one", {"dtn": 2})
    classifier_store(folder / "other", {"new": 3})
    return folder


def test_ways_to_name_two_models(stores, monkeypatch):
    two, three, one, other = (str(stores / name) for name in ("two", "three", "one", "other"))
    # The LayerNorm twin first.
    assert find_targets([two]) == Targets((two,), "ln", "dtn")
    assert find_targets([], two) == Targets((two,), "ln", "dtn")
    for words in ([two, "dtn", "ln"], [f"{two}:dtn", f"{two}:ln"], [f"{two}:dtn", "ln"], [f"{two}/:dtn", f"{two}:ln"]):
        found = find_targets(words)
        assert (found.first, found.second) == ("dtn", "ln")
        assert [Path(store).resolve() for store in found.stores] == [Path(two)]
    assert find_targets(["ln", "dtn"], Path(three)) == Targets((three,), "ln", "dtn")
    assert find_targets([f"{three}:a:b", "dtn"]) == Targets((three,), "a:b", "dtn")
    assert find_targets([one, other]) == Targets((one, other), "dtn", "new")
    assert find_targets([f"{two}:ln", other]) == Targets((two, other), "ln", "new")
    # One name in both stores: told apart by the stores.
    assert find_targets([f"{two}:dtn", one]) == Targets((f"two={two}", f"one={one}"), "two/dtn", "one/dtn")
    monkeypatch.chdir(stores)
    assert find_targets(["two:ln", "dtn"]) == Targets(("two",), "ln", "dtn")


def test_stores_of_one_folder_name_are_numbered(tmp_path):
    for run in ("run1", "run2"):
        classifier_store(tmp_path / run / "store", {"dtn": 0})
    found = find_targets([str(tmp_path / run / "store") for run in ("run1", "run2")])
    assert (found.first, found.second) == ("first/dtn", "second/dtn")
    report = collect(found.stores, ReportOptions(replicates=10, pairs=[f"{found.first}:{found.second}"]))
    assert compare(report, found.first, found.second).overall.value == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "expected two models, got nothing: name them as STORE A B"),
        (["ln"], "expected two models, got ln"),
        (["ln", "dtn"], "expected a folder with results, got 'ln'"),
        (["three"], "expected two models out of a:b, dtn, ln, got none"),
        (["two", "ln", "ln"], "expected two models out of dtn, ln, got ln, ln"),
        (["two", "ln", "other"], "expected a model out of dtn, ln in two, got 'other'"),
        (["two:ln", "one:other"], "expected a model out of dtn in one, got 'other'"),
        (["two", "one"], "expected a store with one model, got two with dtn, ln"),
        (["two", "one", "ln", "dtn"], "expected two models, got two one ln dtn"),
    ],
)
def test_what_names_no_two_models(stores, monkeypatch, words, told):
    monkeypatch.chdir(stores)
    with pytest.raises(ReportError, match=told):
        find_targets(words)


# The command


def test_the_command_prints_one_screen(stores, capsys):
    assert main(["compare", str(stores / "two"), "--replicates", "100"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) <= 23
    report = collect([stores / "two"], ReportOptions(replicates=100, pairs=["ln:dtn"]))
    # It may take more than a line of 80 columns.
    assert " ".join(said.out.split()).startswith(sentence(compare(report, "ln", "dtn")))


def test_the_command_gives_json_alone(stores, capsys):
    assert main(["compare", f"{stores}/three:a:b", "dtn", "--json", "--replicates", "20", "--baseline", "ln"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["first"], content["second"], content["baseline"]) == ("a:b", "dtn", "ln")
    assert content["overall"]["name"] == "mCE"


def test_detectors_by_the_command(tmp_path, capsys):
    store = detector_store(tmp_path / "store", {"ln": 0, "dtn": 3}, images=12, masks=True)
    assert main(["compare", str(store), "--kind", "segm", "--metric", "AP50", "--replicates", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "mPC AP50" in lines[0]
    assert lines[-1].startswith("partial (6/75)")


def test_errors_of_the_command(stores, capsys):
    assert main(["compare", str(stores / "three")]) == 1
    assert "expected two models out of a:b, dtn, ln, got none: name them as" in capsys.readouterr().err
    assert main(["compare", str(stores / "two"), "--replicates", "-1"]) == 1
    assert "expected at least 0 replicates" in capsys.readouterr().err


def test_imported_results_are_compared_without_a_test():
    report = classification_report(replicates=0, partial={"dtn": "3 bad images left out"})
    models = tuple(replace(model, origin="imported") for model in report.models)
    comparison = compare(replace(report, models=models), "ln", "dtn")
    assert comparison.note == "ln: imported, dtn: partial (3 bad images left out), imported"
    assert comparison.overall.value == pytest.approx(comparison.overall.second - comparison.overall.first)
    assert "*" not in "".join(screen(comparison))
