"""The demonstration end to end, much reduced: what it writes, what it reuses, what survives a kill."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from dtn_det.cli.main import main
from dtn_det.demo import processes, run
from dtn_det.demo.dataset import DatasetSpec, is_intact
from dtn_det.demo.plan import CONFIGS, LABELS, Layout, Plan
from dtn_det.demo.run import next_command, run_demo
from dtn_det.robustness.store.store import Store
from dtn_det.system.files import locked

for name in ("mmdet", "numba", "plotly"):
    pytest.importorskip(name)
Console = pytest.importorskip("rich.console").Console

# Two epochs of three iterations.
PLAN = Plan(data=DatasetSpec(seed=1, num_train=12, num_val=3), max_epochs=2, corruptions=("fog",), severities=(3,))

# Runs PLAN in the folder that is its argument.
SCRIPT = """
import sys
from pathlib import Path
from rich.console import Console
from dtn_det.demo.dataset import DatasetSpec
from dtn_det.demo.plan import Plan
from dtn_det.demo.run import run_demo
if __name__ == "__main__":
    data = DatasetSpec(seed=1, num_train=12, num_val=3)
    run_demo(Path(sys.argv[1]), Plan(data=data, max_epochs=2, corruptions=("fog",), severities=(3,)), Console())
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "out"
    output = io.StringIO()
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
            if "dtn_det.demo.worker" in command and str(root) in command:
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
    monkeypatch.setattr(processes.subprocess, "Popen", None)  # a worker could not start
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


def test_a_lost_result_is_computed_again_and_comes_out_the_same(finished):
    """The unit of one model: the corruption is reproducible, and the other model's process does not start."""
    layout, _, _ = finished
    (lost,) = layout.store("ln").rglob("unit-*.parquet")
    before = records(layout, "ln")
    stamps = {path: path.stat().st_mtime_ns for path in layout.root.rglob("*.pth")}
    other = next(layout.store("dtn").rglob("unit-*.parquet")).stat().st_mtime_ns
    lost.unlink()
    run_demo(layout.root, PLAN, Console(file=io.StringIO()))
    assert records(layout, "ln") == before
    assert {path: path.stat().st_mtime_ns for path in layout.root.rglob("*.pth")} == stamps
    assert next(layout.store("dtn").rglob("unit-*.parquet")).stat().st_mtime_ns == other


def test_killed_in_training_it_continues_to_the_same_weights(finished, tmp_path):
    reference, report, _ = finished
    layout = Layout(tmp_path / "killed")
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(layout.root)], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: any((layout.model(model) / "last_checkpoint").exists() for model in CONFIGS))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: not workers_of(layout.root), seconds=20)  # they do not outlive their parent
    again = run_demo(layout.root, PLAN, Console(file=io.StringIO()))
    for model in CONFIGS:
        logs = "".join(log.read_text() for log in layout.model(model).rglob("*.log"))
        assert "Epoch(train)" in logs
        expected = weights(reference, model)
        for name, value in weights(layout, model).items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    pd.testing.assert_frame_equal(again.sections[0].numbers, report.sections[0].numbers)


def test_a_failing_worker_is_reported_with_the_end_of_its_log(tmp_path, monkeypatch):
    layout = Layout(tmp_path / "out")
    monkeypatch.setattr(run, "prepare_data", lambda root, spec, bars: root.mkdir())  # no images there
    with pytest.raises(
        RuntimeError, match=r"(?s)process of model '\w+' failed with exit code 1.*continues.*No such file"
    ):
        run_demo(layout.root, PLAN, Console(file=io.StringIO()))
    assert not workers_of(layout.root)


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
