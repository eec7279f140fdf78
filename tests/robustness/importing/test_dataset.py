"""The data set of imported results decides whether AlexNet's errors on ImageNet-C may divide them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtn_det.cli.main import main
from dtn_det.corruptions.catalog import BENCHMARK
from dtn_det.errors import InputError, ReportError
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.robustness.importing import read_imported, write_imported
from dtn_det.robustness.importing.read import import_files

CELLS = [(name, severity) for name in BENCHMARK for severity in range(1, 6)]


def write_csv(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [["", *(name for name, _ in CELLS)], ["", *(str(severity) for _, severity in CELLS)]]
    rows += [[name, *["0.75"] * len(CELLS)] for name in names]
    path = folder / "unaggregated_results.csv"
    path.write_text("\n".join(map(",".join, rows)))
    return path


def write_model(csv: Path, name: str, dataset: str) -> Path:
    path = csv.parent / f"{name}.json"
    path.write_text(json.dumps({"clean_acc": "80", "dataset": dataset}))
    return path


def names_of(store: Path) -> tuple[set[str], tuple[str, ...]]:
    report = collect([store], ReportOptions(replicates=0))
    return {*report.sections[0].numbers["name"]}, report.remarks


def test_the_files_tell_the_data_set(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "results", "A")
    (results,) = import_files([csv, write_model(csv, "A", "cifar10")], "robustbench")
    assert results.source.dataset == "CIFAR-10-C"
    assert results.source.remarks == ()
    write_imported(tmp_path / "store", results)
    names, remarks = names_of(tmp_path / "store")
    assert "mean error" in names
    assert not {"mCE", "CE", "relative mCE"} & names
    assert any("got imported results of CIFAR-10-C (A)" in text for text in remarks)


def test_the_folder_tells_it_where_no_file_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = write_csv(tmp_path / "imagenet-work" / "model_info" / "cifar100" / "corruptions", "A")
    store = tmp_path / "store"
    assert main(["import", str(csv), "--store", str(store), "--format", "robustbench"]) == 0
    told = "taken to be CIFAR-100-C from the name of the folder 'cifar100' (--dataset names another)"
    assert told in capsys.readouterr().out
    assert read_imported(store)["A"].source.dataset == "CIFAR-100-C"
    assert main(["import", str(csv), "--store", str(store), "--format", "robustbench", "--dataset", "imagenet"]) == 0
    assert read_imported(store)["A"].source.dataset == "ImageNet-C"
    assert "mCE" in names_of(store)[0]


def test_an_unknown_data_set_gets_no_mce_until_it_is_named(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "results", "A")
    (unknown,) = import_files([csv], "robustbench")
    assert unknown.source.dataset == ""
    write_imported(tmp_path / "store", unknown)
    names, remarks = names_of(tmp_path / "store")
    assert "mCE" not in names
    assert any("(A; import them again with --dataset)" in text for text in remarks)
    with pytest.raises(ReportError, match="expected another --baseline than alexnet"):
        collect([tmp_path / "store"], ReportOptions(baseline="alexnet", replicates=0))
    (named,) = import_files([csv], "robustbench", dataset="imagenet")
    write_imported(tmp_path / "store", named)
    assert "mCE" in names_of(tmp_path / "store")[0]


def test_results_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "results", "A", "B")
    one, other = write_model(csv, "A", "cifar10"), write_model(csv, "B", "cifar100")
    with pytest.raises(InputError, match=r"expected results on one data set in .* got cifar10 and cifar100"):
        import_files([csv, one, other], "robustbench")
    with pytest.raises(InputError, match=r"expected --dataset cifar10, of which the results in .* are, got imagenet"):
        import_files([csv, one], "robustbench", dataset="imagenet")
    with pytest.raises(InputError, match="got the dataset 'mnist': leave that file out"):
        import_files([csv, write_model(csv, "A", "mnist")], "robustbench")


def test_results_of_two_data_sets_are_no_report(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "results", "A")
    for name, dataset in (("a", "imagenet"), ("b", "cifar10")):
        (results,) = import_files([csv], "robustbench", name, dataset)
        write_imported(tmp_path / "store", results)
    with pytest.raises(ReportError, match=r"got ImageNet-C \(a\) and CIFAR-10-C \(b\): make one report for each"):
        collect([tmp_path / "store"], ReportOptions(replicates=0))


def test_detectors_have_no_such_data_set(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"fog": {"1": {"coco/bbox_mAP": 0.3}}}))
    with pytest.raises(InputError, match="expected --dataset with results of classifiers, got mmdet"):
        import_files([path], "mmdet", dataset="imagenet")
