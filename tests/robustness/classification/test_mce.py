"""`dtn-det mce` from the command line to the store."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from class_folders import picture, write_folders

from dtn_det.cli.main import main
from dtn_det.robustness import store as store_module
from dtn_det.robustness.store import Store
from dtn_det.system.files import locked

MODELS = '''
import torch

class Colours(torch.nn.Module):
    """Tells images apart by their mean colours."""

    def __init__(self, classes, seed):
        super().__init__()
        self.linear = torch.nn.Linear(12, classes, bias=False)
        generator = torch.Generator().manual_seed(seed)
        torch.nn.init.normal_(self.linear.weight, std=20.0, generator=generator)

    def forward(self, images):
        return self.linear(torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))

def imagenet():
    return Colours(1000, 0)

def small():
    return Colours(4, 1)

def other():
    return Colours(4, 2)

def prepared():
    return Colours(4, 1), lambda images: images.float() / 255

def not_finite():
    model = Colours(4, 1)
    model.linear.weight.data.fill_(float("nan"))
    return model

def no_module():
    return "a string"

def fails():
    raise RuntimeError("no weights today")

def exits():
    raise SystemExit(0)

def needs_one(argument):
    return Colours(4, 1)

class Odd(Colours):
    def __init__(self, answer):
        super().__init__(4, 1)
        self.answer = answer

    def forward(self, images):
        return self.answer(super().forward(images))

def a_tuple():
    return Odd(lambda logits: (logits, 1))

def complex_ones():
    return Odd(lambda logits: logits + 1j)

def gray():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 32), torch.nn.Flatten())

def fails_later():
    return Odd(lambda logits: logits @ logits)

def exits_later():
    return Odd(lambda logits: exits())

def prepares_doubles():
    return Colours(4, 1), lambda images: images.double()
'''


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "little_models.py").write_text(MODELS)
    (tmp_path / "broken_models.py").write_text("def small(:")
    (tmp_path / "leaving_models.py").write_text("raise SystemExit(0)")
    (tmp_path / "needy_models.py").write_text("import nobody_has_this")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "little_models", raising=False)


@pytest.fixture
def mce(tmp_path: Path, models: None, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `dtn-det mce` in this process on two corruptions of four small images."""

    def run(*arguments: str, store: str = "store", model: str = "python:little_models:small") -> tuple[int, str, str]:
        data = tmp_path / "data"
        if not data.exists():
            write_folders(data, ("ant", "bee", "cat", "dog"), side=32)
        defaults = {
            "--data": str(data),
            "--profile": "cifar-c",
            "--severities": "2",
            "--workers": "0",
            "--unit-size": "3",
            "--device": "cpu",
        }
        given = {argument for argument in arguments if argument.startswith("--")}
        options = [word for pair in defaults.items() if pair[0] not in given for word in pair]
        if "--corruptions" not in given:
            options += ["--corruptions", "contrast", "gaussian_noise"]
        code = main(["mce", *model.split(), "--store", str(tmp_path / store), *options, *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_prints_a_table_and_keeps_records(mce, tmp_path: Path) -> None:
    code, out, _ = mce()
    assert code == 0
    assert "Gaussian noise partial (1/5)" in out
    store = Store.open(tmp_path / "store")
    assert store.manifest.num_images == 8
    assert [cell.corruption for cell in store.manifest.cells] == ["clean", "gaussian_noise", "contrast"]
    model = store.model("small")
    assert model.finished() == {0, 1, 2}
    assert sum(table.num_rows for table in model.batches()) == 8 * 3


def test_started_again_it_repeats_only_what_is_missing(mce, tmp_path: Path) -> None:
    _, first, _ = mce()
    folder = Store.open(tmp_path / "store").model("small").folder
    before = {path.name: path.read_bytes() for path in folder.glob("unit-*")}
    (folder / "unit-000001.parquet").unlink()
    untouched = (folder / "unit-000000.parquet").stat().st_mtime_ns
    _, again, _ = mce()
    assert "2 of 3 units are done already, 3 of 8 images are left" in again
    assert "Evaluating images: 3 of 3" in again
    assert {path.name: path.read_bytes() for path in folder.glob("unit-*")} == before
    assert (folder / "unit-000000.parquet").stat().st_mtime_ns == untouched
    assert _table(first) == _table(again)


def test_several_models_share_a_run_and_one_is_the_baseline(mce) -> None:
    code, out, _ = mce("--baseline", "small", model="python:little_models:small python:little_models:other")
    assert code == 0
    assert "divided by the errors of small on the same images" in out
    means = next(line for line in out.splitlines() if "mCE partial (2/75)" in line)
    assert "100.00" in means


def test_a_table_without_a_baseline_names_the_models_that_may_be_one(mce) -> None:
    _, alone, _ = mce()
    assert "no baseline: CE and mCE need another model in this store" in " ".join(alone.split())
    _, both, _ = mce(model="python:little_models:other")
    assert "no baseline: name one of other, small with --baseline for CE and mCE" in " ".join(both.split())


def test_more_models_than_a_line_holds_go_on_in_another_table(mce, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    names = ["first", "second", "third", "fourth"]
    code, out, _ = mce("--names", *names, "--baseline", "first", model=" ".join(["python:little_models:small"] * 4))
    assert code == 0
    assert sum("mCE partial (2/75)" in line for line in out.splitlines()) > 1
    assert "…" not in out
    headings = [line for line in out[out.index("CE (%)") :].splitlines() if "Corruption " in line]
    assert [name for line in headings for name in names if f" {name} " in line] == names


def test_a_model_that_comes_later_has_the_numbers_of_a_shared_run(mce, tmp_path: Path) -> None:
    mce(model="python:little_models:small python:little_models:other")
    mce(store="later")
    mce(store="later", model="python:little_models:other")
    for name in ("small", "other"):
        together, alone = (
            [table.to_pylist() for table in Store.open(tmp_path / store).model(name).batches()]
            for store in ("store", "later")
        )
        assert together == alone


def test_workers_change_nothing(mce, tmp_path: Path) -> None:
    mce()
    mce("--workers", "2", store="workers")
    assert _records(tmp_path / "store") == _records(tmp_path / "workers")


def test_a_limit_marks_every_number_as_partial(mce) -> None:
    _, out, _ = mce("--limit", "5", "--corruptions", "benchmark", "--severities", "1", "2", "3", "4", "5")
    assert "limit=5 of 8" in out
    titles = [
        line for line in " ".join(out.split()).split("Classification: ") if "partial (limit=5 of 8 seed=0)" in line
    ]
    assert len(titles) == out.count("Classification: ") > 1


@pytest.mark.usefixtures("in_process")
def test_a_tree_of_a_part_is_marked_as_that_part_is(mce, tmp_path: Path) -> None:
    _, here, _ = mce("--limit", "5", store="here")
    cells = ["--corruptions", "gaussian_noise", "contrast", "--severities", "2", "--workers", "1", "--yes"]
    assert main(["corrupt", str(tmp_path / "data"), str(tmp_path / "tree"), "--limit", "5", *cells]) == 0
    _, there, said = mce("--data", str(tmp_path / "tree"), "--clean", str(tmp_path / "data"), store="there")
    for out in (here, there):
        assert "limit=5 of 8 seed=0, list of files" in " ".join(out.split())
        assert "small: partial (limit=5 of 8 seed=0)" in out
        assert "Classification: summary, partial (limit=5 of 8 seed=0)" in " ".join(out.split())
    assert "3 clean images out of 8 have no corrupted ones" in there + said


def test_partial_cells_are_marked_in_the_mean(mce) -> None:
    _, out, _ = mce("--baseline", "small")
    assert "mCE partial (2/75)" in out
    assert "Mean error partial (2/75)" in out


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--seed", "1"], "corruption: the store has 'cifar-c"),
        (["--jpeg"], "corruption: the store has 'cifar-c no-jpeg"),
        (["--limit", "4"], "num_images: the store has 8, this run 4"),
        (["--severities", "3"], "cells: the store has 3, this run 3; only the store has "),
        (["--corruptions", "fog"], "cells: the store has"),
        (["--unit-size", "4"], "unit_size: the store has 3, this run 4"),
        (["--batch-size", "7"], "batch_size: the store has '128', this run '7'"),
        (["--amp"], "precision: the store has 'float32', this run 'amp'"),
    ],
)
def test_other_settings_refuse_to_mix(mce, arguments: list[str], field: str) -> None:
    mce()
    code, _, err = mce(*arguments)
    assert code == 1
    assert field in err
    assert "--store" in err


def test_other_images_and_other_weights_refuse_to_mix(mce, tmp_path: Path) -> None:
    mce()
    code, _, err = mce("--names", "small", model="python:little_models:other")
    assert code == 1
    assert "weights_hash: the store has" in err
    picture(999, 32).save(tmp_path / "data" / "ant" / "image_0.png")
    code, _, err = mce()
    assert code == 1
    assert "data_hash: the store has" in err


def test_a_store_has_one_writer(mce, tmp_path: Path) -> None:
    mce("--limit", "3")
    folder = Store.open(tmp_path / "store").model("small").folder
    (folder / "unit-000000.parquet").unlink()
    with locked(tmp_path / "store", "--store"):
        code, _, err = mce("--limit", "3")
    assert code == 1
    assert "another dtn-det at work there" in err


def test_a_bad_image_ends_the_run_and_keeps_what_is_finished(mce, tmp_path: Path) -> None:
    write_folders(tmp_path / "data", ("ant", "bee", "cat", "dog"), side=32)
    bad = tmp_path / "data" / "cat" / "image_1.png"
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    code, _, err = mce()
    assert code == 1
    assert f"{bad}: cannot be read" in err
    assert "--on-bad-image record" in err
    assert Store.open(tmp_path / "store").model("small").finished() == {0}
    # The advice works, and then the images that were left out are a difference.
    code, out, _ = mce("--on-bad-image", "record")
    assert code == 1
    assert out.count("left out of small: image ") == 1
    assert Store.open(tmp_path / "store").manifest.protocol["bad_images"] == "left out"
    code, _, err = mce()
    assert code == 1
    assert "bad_images: the store has 'left out', this run 'none'" in err


def test_the_policy_on_bad_images_is_no_difference_while_all_are_good(mce, tmp_path: Path) -> None:
    _, first, _ = mce()
    for options, policy in ((["--on-bad-image", "record"], "left out"), ([], "none")):
        code, out, _ = mce(*options)
        assert code == 0
        assert Store.open(tmp_path / "store").manifest.protocol["bad_images"] == policy
    assert out.split("Classification")[1:] == first.split("Classification")[1:]


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_a_bad_image_can_be_left_out(mce, tmp_path: Path, workers: str) -> None:
    write_folders(tmp_path / "data", ("ant", "bee", "cat", "dog"), side=32)
    bad = tmp_path / "data" / "cat" / "image_1.png"
    bad.write_bytes(b"")
    picture(1, 48).save(tmp_path / "data" / "dog" / "image_0.png")
    code, out, _ = mce("--on-bad-image", "record", "--workers", workers)
    assert code == 1
    assert out.count("left out of small: image ") == 2
    assert f"{bad}: not an image" in out
    assert "expected 32 x 32 pixels, got 48 x 48" in out
    records = _records(tmp_path / "store")
    assert {row["image"] for row in records} == {0, 1, 2, 3, 4, 7}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet50", "expected MODEL to be timm:NAME"),
        ("python:little_models", "expected python:MODULE:FUNCTION"),
        ("python:absent_module:small", "got none of the name 'absent_module'"),
        ("python:little_models:absent", "expected a function 'absent'"),
        ("python:little_models:no_module", "to return a torch module"),
        (
            "python:little_models:imagenet",
            "expected a model of 4 classes for 4 class folders named by words (ant, bee, ",
        ),
        ("python:little_models:not_finite", "expected finite logits from the model 'not_finite'"),
        ("python:little_models:small python:little_models:small", "got small twice: name them with --names"),
        ("python:little_models:fails", "called without arguments, got RuntimeError: no weights today: mend it"),
        ("python:little_models:exits", "called without arguments, got SystemExit: 0: mend it"),
        ("python:little_models:needs_one", "called without arguments, got TypeError: needs_one() missing 1"),
        ("python:little_models:a_tuple", "expected the model 'a_tuple' to return a tensor of logits, got tuple"),
        (
            "python:little_models:complex_ones",
            "expected real logits from the model 'complex_ones', got torch.complex64",
        ),
        ("python:little_models:fails_later", "to answer to images of shape (9, 3, 32, 32), got RuntimeError: mat1 and"),
        (
            "python:little_models:gray",
            "expected a model of RGB images, got 'gray', whose first convolution takes 1 channel: name python:MODULE:",
        ),
        ("python:little_models:exits_later", "to answer to images of shape (9, 3, 32, 32), got SystemExit: 0: mend it"),
        ("python:little_models:prepares_doubles", "got RuntimeError: expected m1 and m2 to have the same dtype"),
        ("python:broken_models:small", "expected the module 'broken_models' to import, got SyntaxError: "),
        ("python:leaving_models:small", "expected the module 'leaving_models' to import, got SystemExit: 0: mend it"),
        ("python:needy_models:small", "to import, got ModuleNotFoundError: No module named 'nobody_has_this'"),
        ("python:../models:small", "expected the module '../models' to import, got TypeError"),
        ("timm:resnet10t@", "expected a file or 'random' after '@' in 'timm:resnet10t@', got nothing"),
        ("timm:resnet_of_nobody", "expected the name of a model of timm"),
        ("timm:resnet10t@absent.pth", "expected a checkpoint file at absent.pth"),
        ("config.py", "expected CONFIG@CHECKPOINT"),
        ("config.py@weights.pth", "expected a config file, got 'config.py'"),
    ],
)
def test_models_that_do_not_fit_are_named(mce, model: str, message: str) -> None:
    code, _, err = mce(model=model)
    assert code == 1
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "absent"], "expected --data to be a folder of images, got absent"),
        (["--batch-size", "0"], "expected --batch-size to be at least 1, got 0"),
        (["--unit-size", "0"], "expected --unit-size to be at least 1, got 0"),
        (["--workers", "-1"], "expected --workers to be at least 0, got -1"),
        (["--names", "a", "b"], "expected --names for 1 model, got 2"),
        (["--names", ""], "expected a name that can be printed on one line, got ''"),
        (["--names", "alexnet"], "expected another name than 'alexnet', which stands for published errors"),
        (["--device", "meta"], "expected a device of this machine, got 'meta', with which torch cannot compute"),
        (["--baseline", "nobody"], "expected --baseline out of small, got 'nobody'"),
        (["--baseline", "alexnet"], "expected another --baseline than alexnet"),
        (["--clean", "data"], "expected --clean only with corrupted images on disk"),
        (["--profile", "imagenet-d"], "expected a profile out of"),
        (["--classes", "imagenet"], "expected class folders of ImageNet-1k such as n01440764"),
        (["--device", "toaster"], "expected a device such as cpu"),
        (["--device", "cuda:99"], "expected a device of this machine, got 'cuda:99'"),
        (["--launcher", "pytorch"], "expected --launcher pytorch under torchrun"),
        (["--launcher", "slurm"], "expected GPUs with --launcher slurm"),
    ],
)
def test_options_that_do_not_fit_are_named(mce, arguments: list[str], message: str) -> None:
    code, _, err = mce(*arguments)
    assert code == 1
    assert message in err


def test_a_store_of_another_version_is_refused(mce, tmp_path: Path) -> None:
    mce()
    path = tmp_path / "store" / "store.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    code, _, err = mce()
    assert code == 1
    assert "got format 99" in err


def test_a_full_disk_keeps_what_is_finished(mce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = store_module.write_bytes

    def write(path: Path, data: bytes) -> None:
        if path.name == "unit-000001.parquet":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(store_module, "write_bytes", write)
    code, _, err = mce()
    assert code == 1
    assert "No space left on device" in err
    assert "All finished units are kept" in err
    monkeypatch.undo()
    assert Store.open(tmp_path / "store").model("small").finished() == {0}


def test_a_full_device_says_what_to_do(mce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "adaptive_avg_pool2d", run_out)
        code, _, err = mce()
    assert code == 1
    assert "expected room on cpu for" in err
    assert "smaller --batch-size" in err
    # Nothing is finished, so the smaller batch goes into the same store.
    assert mce("--batch-size", "2")[0] == 0


def test_small_images_under_the_large_profile_give_a_warning(mce) -> None:
    _, out, _ = mce("--profile", "imagenet-c", "--limit", "1")
    assert "--profile cifar-c to corrupt them as they are" in out


def test_other_libraries_give_a_warning(mce, tmp_path: Path) -> None:
    mce()
    folder = Store.open(tmp_path / "store").model("small").folder
    values = json.loads((folder / "model.json").read_text())
    values["versions"]["torch"] = "1.0"
    (folder / "model.json").write_text(json.dumps(values))
    _, out, _ = mce()
    assert "small was begun with other versions: torch 1.0 then" in out


def _table(out: str) -> str:
    return out[out.index("Classification: summary") :]


def _records(store: Path, name: str = "small") -> list[dict[str, object]]:
    return [row for table in Store.open(store).model(name).batches() for row in table.to_pylist()]
