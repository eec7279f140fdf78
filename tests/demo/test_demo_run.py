"""The demonstration end to end, much reduced: what it writes, what it reuses, what survives a kill."""

from __future__ import annotations

import functools
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from dtn_det.cli.main import main
from dtn_det.demo import run, worker
from dtn_det.demo.dataset import DatasetSpec, is_intact
from dtn_det.demo.plan import CONFIGS, LABELS, Layout, Plan
from dtn_det.demo.run import next_command, run_demo
from dtn_det.demo.worker import Progress, is_trained, run_job
from dtn_det.robustness.store import Store
from dtn_det.system.files import locked

for name in ("mmdet", "numba", "plotly"):
    pytest.importorskip(name)
Console = pytest.importorskip("rich.console").Console

# Two epochs of three iterations.
PLAN = Plan(data=DatasetSpec(seed=1, num_train=12, num_val=3), max_epochs=2, corruptions=("fog",), severities=(3,))

# What the process of a model takes time to import.
WORKER_MODULES = ("dtn_det.demo.worker", "dtn_det.training.launch", "dtn_det.robustness.detection.run")

# Trains and evaluates one model of PLAN in a process of its own, below the folder that is its argument.
SCRIPT = """
import sys
from pathlib import Path
from dtn_det.demo.dataset import DatasetSpec
from dtn_det.demo.plan import Layout, Plan
from dtn_det.demo.worker import run_models
data = DatasetSpec(seed=1, num_train=12, num_val=3)
plan = Plan(data=data, max_epochs=2, corruptions=("fog",), severities=(3,))
run_models(["dtn"], plan, Layout(Path(sys.argv[1])), lambda *_: None)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, warm_mmdet):
    """The folder, report and output of a whole run, whose processes need not import the libraries again."""
    root = tmp_path_factory.mktemp("demo") / "out"
    output = io.StringIO()
    warm_mmdet.load(*WORKER_MODULES)

    def start(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        assert command[0] == sys.executable
        return warm_mmdet.popen(command[1:], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "subprocess", SimpleNamespace(Popen=start, PIPE=subprocess.PIPE))
        report = run_demo(root, PLAN, Console(file=output, width=200))
    return Layout(root), report, output.getvalue()


def weights(layout: Layout, model: str) -> dict[str, torch.Tensor]:
    state = torch.load(layout.model(model) / "epoch_2.pth", map_location="cpu", weights_only=False)["state_dict"]
    assert state
    return state


def workers_of(root) -> list[int]:
    """Ids of the living worker processes whose command line names the folder."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline") as file:
                    command = file.read()
            except OSError:
                continue
            if "\0dtn_det.demo.worker\0" in command and str(root) in command:
                found.append(int(entry))
    return found


def wait_until(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def records(layout: Layout, model: str) -> list[dict]:
    (unit,) = Store.open(layout.store(model)).model(LABELS[model]).batches()
    return unit.to_pylist()


def test_everything_is_written(finished):
    layout, report, output = finished
    assert is_intact(layout.data, PLAN.data)
    assert [model.name for model in report.models] == ["LayerNorm", "DTN"]
    (section,) = report.sections
    assert section.pairs == (("LayerNorm", "DTN"),)
    mean = section.numbers.query("name == 'mPC AP' and scope == '' and severity == 0")
    assert mean["cells"].tolist() == [1, 1]
    assert mean["expected_cells"].tolist() == [75, 75]
    assert layout.picture.read_bytes().startswith(b"\x89PNG")
    assert (layout.report / "report.tex").is_file()
    for name in ("report.html", "report.md", "tables/summary.tex", "report.json"):
        assert "LayerNorm" in (layout.report / name).read_text()
    for model in CONFIGS:
        assert json.loads(layout.training(model).read_text()) == {"epochs": 2, "iterations": 6}
        assert len(records(layout, model)) == 3 * len(PLAN.cells())
    places = (layout.report / "report.html", layout.picture, layout.data, layout.model("dtn"), layout.model("ln"))
    for path in places:
        assert os.path.relpath(path) in output
    assert next_command() in output


def test_without_a_terminal_the_log_tells_what_is_being_done(finished):
    _, _, output = finished
    for line in (
        "Drawing the images: 1 of 15 (7%)",
        "Drawing the images: 15 of 15 (100%)",
        "Training DTN: 1 of 6 (17%), loss ",
        "Training LayerNorm: 6 of 6 (100%), loss ",
        "Evaluating DTN: 2 of 6 (33%)",
        "Evaluating LayerNorm: 6 of 6 (100%)",
    ):
        assert line in output
    assert output.index("Training DTN: 1 of 6") < output.index("Training DTN: 6 of 6") < output.index("Evaluating DTN")


def test_the_next_command_works_as_printed(tmp_path, monkeypatch):
    root = Path(run.__file__).resolve().parents[2]
    script = "tools/train.py configs/dtn_swin/mask-rcnn_dtn-swin-t-p4-w7_fpn_1x_coco.py"
    python = tmp_path / "my env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    for name in ("python", "python3"):
        python.with_name(name).symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python.with_name("python3")))

    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", str(python.parent))
    assert next_command() == f"python {script}"
    monkeypatch.setenv("PATH", "/nowhere")
    assert next_command() == f"'{python}3' {script}"
    monkeypatch.chdir(tmp_path)
    command = shlex.split(next_command())
    assert command[0] == "my env/bin/python3"
    assert all(Path(part).is_file() for part in command)


def test_only_the_dtn_model_has_dtn_parameters(finished):
    layout, _, _ = finished
    assert any("pos_proj" in name for name in weights(layout, "dtn"))
    assert not any("pos_proj" in name for name in weights(layout, "ln"))


def test_a_second_call_trains_and_evaluates_nothing(finished, monkeypatch):
    layout, report, _ = finished
    monkeypatch.setattr(worker, "subprocess", None)  # a worker could not start
    output = io.StringIO()
    again = run_demo(layout.root, PLAN, Console(file=output, width=200))
    pd.testing.assert_frame_equal(again.sections[0].numbers, report.sections[0].numbers)
    lines = output.getvalue().splitlines()
    assert [line for line in lines if "reused" in line] == [
        "Drawing the images: 15 of 15 (100%), reused",
        "Training DTN: 6 of 6 (100%), reused",
        "Evaluating DTN: 6 of 6 (100%), reused",
        "Training LayerNorm: 6 of 6 (100%), reused",
        "Evaluating LayerNorm: 6 of 6 (100%), reused",
    ]


@pytest.fixture
def one_thread():
    """As in the processes of the models, whose numbers must not depend on the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_here(models: Sequence[str], plan: Plan, layout: Layout, on_progress: Callable[[str, Progress], None]) -> None:
    """`run_models` in this process."""
    for model in models:
        run_job(model, plan, layout, functools.partial(on_progress, model))


@pytest.mark.usefixtures("one_thread")
def test_a_lost_result_is_computed_again_and_comes_out_the_same(finished, monkeypatch):
    """The unit of one model: the corruption is reproducible, and the other model has nothing to do."""
    layout, _, _ = finished
    (lost,) = layout.store("ln").rglob("unit-*.parquet")
    before = records(layout, "ln")
    stamps = {path: path.stat().st_mtime_ns for path in layout.root.rglob("*.pth")}
    lost.unlink()
    monkeypatch.setattr(run, "run_models", lambda models, *rest: started.append(models) or run_here(models, *rest))
    monkeypatch.setattr(run, "make_report", lambda *_, **__: None)
    started: list[Sequence[str]] = []
    run_demo(layout.root, PLAN, Console(file=io.StringIO()))
    assert started == [["ln"]]
    assert records(layout, "ln") == before
    assert {path: path.stat().st_mtime_ns for path in layout.root.rglob("*.pth")} == stamps


@pytest.mark.usefixtures("one_thread")
def test_killed_in_training_it_continues_to_the_same_weights(finished, tmp_path):
    reference, _, _ = finished
    layout = Layout(tmp_path / "killed")
    shutil.copytree(reference.data, layout.data)
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(layout.root)], stdout=subprocess.DEVNULL)
    try:
        wait_until((layout.model("dtn") / "last_checkpoint").exists)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: not workers_of(layout.root), seconds=20)  # they do not outlive their parent
    assert not is_trained(layout, "dtn")
    steps: list[Progress] = []
    run_job("dtn", PLAN, layout, steps.append)
    # It went on after the last epoch that was written.
    assert steps[0] == Progress("train", 4, 6, steps[0].note)
    expected = weights(reference, "dtn")
    for name, value in weights(layout, "dtn").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    assert records(layout, "dtn") == records(reference, "dtn")


def test_a_failing_worker_is_reported_with_the_end_of_its_log(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nseq 100 >&2\necho "No such file" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(
        RuntimeError,
        match=r"(?s)process of model 'dtn' failed with exit code 1; .*continues.*:\n87\n.*\n100\nNo such file$",
    ):
        worker.run_models(["dtn"], PLAN, Layout(tmp_path / "out"), lambda *_: None)


def test_the_others_end_with_one_that_was_killed(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$3" in *dtn*) kill -9 $$ ;; *) exec sleep 600 ;; esac\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RuntimeError, match=r"process of model 'dtn' was killed by signal 9 \(out of memory, perhaps\)"):
        worker.run_models(list(CONFIGS), PLAN, Layout(tmp_path), lambda *_: None)


def test_two_at_once_in_one_folder_are_refused(tmp_path):
    with locked(tmp_path / "out", "--out"), pytest.raises(ValueError, match=r"expected to be alone in .*out"):
        run_demo(tmp_path / "out", PLAN, Console(file=io.StringIO()))
    with locked(tmp_path / "out", "--out"):  # the lock went with its holder
        pass


def test_the_command_refuses_a_bad_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 1
    assert "expected --out to be a folder" in capsys.readouterr().err
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "expected --out to be empty or the folder of an earlier demonstration" in capsys.readouterr().err


def test_the_command_refuses_another_seed(finished, capsys):
    layout, _, _ = finished
    assert main(["demo", "--out", str(layout.root), "--seed", "2"]) == 1
    assert "--fresh" in capsys.readouterr().err
    assert main(["demo", "--out", str(layout.root), "--seed", "-2"]) == 1
    assert "expected a seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "extra"),
    [("numba", "corruptions"), ("scipy", "corruptions"), ("pyarrow", "eval"), ("plotly", "report")],
)
def test_a_missing_extra_is_named_before_anything_is_done(tmp_path, monkeypatch, capsys, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo", "--out", str(tmp_path / "out")]) == 1
    assert f"dtn-det[{extra}]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_only_writes_the_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(DatasetSpec, "sizes", lambda self: {"train": 2, "val": 1})
    folder = tmp_path / "shapes"
    assert main(["demo", "--data-only", str(folder), "--seed", "4"]) == 0
    assert is_intact(folder, DatasetSpec(seed=4))
    assert sorted(path.name for path in folder.iterdir()) == ["annotations", "manifest.json", "train", "val"]
    stamp = (folder / "train/000000.png").stat().st_mtime_ns
    assert main(["demo", "--data-only", str(folder), "--seed", "4"]) == 0
    assert (folder / "train/000000.png").stat().st_mtime_ns == stamp

    (folder / "other").write_text("")
    assert main(["demo", "--data-only", str(folder)]) == 1
    assert "got" in capsys.readouterr().err
    assert main(["demo", "--data-only", str(folder / "other")]) == 1
    assert "expected --data-only to be a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "images", "epochs", "fresh"),
    [
        ([], (400, 100), None, False),
        (["--quick", "--fresh"], (16, 8), 2, True),
        (["--resume"], (400, 100), None, False),
    ],
)
def test_the_command_hands_over_its_arguments(tmp_path, monkeypatch, arguments, images, epochs, fresh):
    calls = []
    monkeypatch.setattr(run, "run_demo", lambda root, plan, console, **options: calls.append((root, plan, options)))
    assert main(["demo", "--out", str(tmp_path / "out"), "--seed", "3", *arguments]) == 0
    ((root, plan, options),) = calls
    assert root == tmp_path / "out"
    assert (plan.data.num_train, plan.data.num_val) == images
    assert plan.data.seed == 3
    assert plan.max_epochs == epochs
    assert options == {"fresh": fresh}


def test_fresh_and_resume_exclude_each_other(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        main(["demo", "--out", str(tmp_path), "--fresh", "--resume"])
    assert error.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
