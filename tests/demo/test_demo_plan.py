from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pytest

pytest.importorskip("mmdet")

from dtn_det.corruptions import Corruptor
from dtn_det.demo import plan as plan_module
from dtn_det.demo.dataset import DatasetSpec
from dtn_det.demo.plan import CONFIGS, Layout, Plan, clear, load_config, open_folder
from dtn_det.demo.worker import _last_checkpoint, decode_job, encode_job, is_trained, prepare_config
from dtn_det.system.files import write_bytes

PLAN = Plan(data=DatasetSpec(seed=5, num_train=4, num_val=2))


def test_cells_are_clean_and_every_corruption_at_every_severity():
    cells = Plan(corruptions=("fog", "motion_blur"), severities=(1, 5)).cells()
    assert cells == (("clean", 0), ("fog", 1), ("fog", 5), ("motion_blur", 1), ("motion_blur", 5))
    assert len(set(Plan().cells())) == 13


def test_the_default_takes_one_corruption_of_each_group():
    assert Plan().corruptions == ("gaussian_noise", "motion_blur", "fog", "jpeg_compression")


def test_the_settings_say_how_images_are_corrupted():
    assert PLAN.settings()["corruptor"] == Corruptor("coco-c", seed=5).identity


def test_a_job_survives_the_command_line(tmp_path):
    assert decode_job(encode_job("ln", PLAN, Layout(tmp_path))) == ("ln", PLAN, Layout(tmp_path))


def test_the_twins_differ_in_the_norm_alone():
    dtn, ln = load_config("dtn").to_dict(), load_config("ln").to_dict()
    assert dtn["model"]["backbone"].pop("dtn_cfg") == {"init": "local"}
    assert dtn["model"]["backbone"].pop("dtn_stages") == (0, 1, 2, 3)
    assert ln["model"]["backbone"].pop("dtn_stages") == ()
    assert dtn == ln


@pytest.mark.parametrize("model", CONFIGS)
def test_a_config_gets_paths_seed_and_length(model, tmp_path):
    layout = Layout(tmp_path)
    layout.data.mkdir()
    cfg = prepare_config(model, replace(PLAN, max_epochs=3), layout)
    assert cfg.randomness.seed == 5
    assert cfg.train_cfg.max_epochs == 3
    assert cfg.work_dir == str(layout.model(model))
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == f"{layout.data}/"
    assert cfg.test_evaluator.ann_file == f"{layout.data}/annotations/instances_val.json"


def test_a_folder_is_opened_again_with_the_same_settings(tmp_path):
    layout = open_folder(tmp_path, PLAN)
    (layout.root / "kept").write_text("")
    assert open_folder(layout.root, PLAN) == layout
    assert (layout.root / "kept").exists()


def test_other_settings_are_refused_and_named(tmp_path):
    open_folder(tmp_path, PLAN)
    before = (tmp_path / "settings.json").read_text()
    with pytest.raises(ValueError, match=r'"seed": 5.*"seed": 6.*pass --fresh .* or --out'):
        open_folder(tmp_path, replace(PLAN, data=replace(PLAN.data, seed=6)))
    assert (tmp_path / "settings.json").read_text() == before


def test_another_config_is_refused(tmp_path, monkeypatch):
    open_folder(tmp_path, PLAN)
    changed = load_config("dtn")
    changed.optim_wrapper.optimizer.lr = 0.5
    monkeypatch.setattr(plan_module, "load_config", lambda name: changed)
    with pytest.raises(ValueError, match="config of dtn was "):
        open_folder(tmp_path, PLAN)


def test_another_version_of_a_library_is_refused(tmp_path):
    open_folder(tmp_path, PLAN)
    settings = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "torch": "1.0"}))
    with pytest.raises(ValueError, match=r'torch was "1\.0", is '):
        open_folder(tmp_path, PLAN)


def test_a_folder_with_other_files_is_refused_fresh_or_not(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(ValueError, match="expected --out to be empty or the folder of an earlier demonstration"):
            open_folder(tmp_path, PLAN, fresh=fresh)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_fresh_deletes_what_a_demonstration_writes_and_nothing_else(tmp_path):
    layout = open_folder(tmp_path, PLAN)
    own = [layout.report / "report.html", layout.picture, layout.training("dtn"), layout.data / "manifest.json"]
    other = tmp_path / "notes.txt"
    for path in [*own, other]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    open_folder(tmp_path, replace(PLAN, data=replace(PLAN.data, seed=6)), fresh=True)
    assert not any(path.exists() for path in own)
    assert other.exists()
    assert json.loads((tmp_path / "settings.json").read_text())["data"]["seed"] == 6


def test_clear_can_be_repeated(tmp_path):
    open_folder(tmp_path, PLAN)
    clear(tmp_path)
    clear(tmp_path)
    assert not any(tmp_path.iterdir())


def test_missing_configs_are_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(plan_module, "__file__", str(tmp_path / "site" / "dtn_det" / "demo" / "plan.py"))
    with pytest.raises(FileNotFoundError, match="pip install -e"):
        load_config("dtn")


def make_checkpoint(path, *, complete: bool) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", "x" * 1000)
    if not complete:
        path.write_bytes(path.read_bytes()[:-30])


def test_half_written_checkpoints_do_not_count(tmp_path):
    assert _last_checkpoint(tmp_path) is None
    make_checkpoint(tmp_path / "epoch_9.pth", complete=True)
    make_checkpoint(tmp_path / "epoch_10.pth", complete=True)
    make_checkpoint(tmp_path / "epoch_11.pth", complete=False)
    (tmp_path / "epoch_12.pth").write_bytes(b"")
    assert _last_checkpoint(tmp_path) == tmp_path / "epoch_10.pth"


def test_a_training_is_over_when_its_note_and_its_checkpoint_are_there(tmp_path):
    layout = Layout(tmp_path)
    layout.model("ln").mkdir()
    make_checkpoint(layout.model("ln") / "epoch_1.pth", complete=True)
    assert not is_trained(layout, "ln")
    layout.training("ln").write_text("{}")
    assert is_trained(layout, "ln")
    (layout.model("ln") / "epoch_1.pth").unlink()
    assert not is_trained(layout, "ln")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
