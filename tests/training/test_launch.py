"""What is wrong with the arguments is found, and said, before anything is built."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from config_catalog import CONFIGS, resolve
from mmengine.config import Config
from mmengine.registry import RUNNERS

from dtn_det.checkpoints.files import check_checkpoint
from dtn_det.errors import CheckpointError
from dtn_det.training import launch
from dtn_det.training.config import load_config
from dtn_det.training.launch import enable_tta

ROOT = Path(__file__).resolve().parents[2]
RETINANET = "retinanet_dtn-swin-t-p4-w7_fpn_1x_coco"
MASK_RCNN = "mask-rcnn_dtn-swin-t-p4-w7_fpn_1x_coco"
RUN = ("model", "train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "visualizer")
TRAIN_AND_VAL = ["train_dataloader", "val_dataloader"]


def test_config_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(
        FileNotFoundError, match=r"got 'configs/dtn_pvt/retinanet_dtn-pvt-t_1x.py': there is no such file; did"
    ):
        load_config("configs/dtn_pvt/retinanet_dtn-pvt-t_1x.py")


def test_unlike_names_are_not_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(FileNotFoundError, match=r"there is no such file$"):
        load_config("zzz.py")


def test_config_must_not_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(
        ValueError,
        match=r"expected a config file, got the folder 'configs/dtn_pvt/': name one of the configs in it, such as "
        r"configs/dtn_pvt/mask-rcnn_dtn-pvt-s_fpn_1x_coco.py$",
    ):
        load_config("configs/dtn_pvt/")
    with pytest.raises(ValueError, match=r"got the folder .*: name one of your configs, such as FOLDER/NAME.py$"):
        load_config(str(tmp_path))


def test_config_must_be_a_config(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ValueError, match=r"expected a config that ends in .py, .json or .yaml, got .*weights.pth"):
        load_config(str(tmp_path / "weights.pth"))


def test_options_are_merged() -> None:
    cfg = load_config(
        str(CONFIGS[RETINANET]),
        {"train_dataloader.batch_size": 7, "train_dataloader.dataset.pipeline.2.scale": (96, 64)},
    )
    assert cfg.train_dataloader.batch_size == 7
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (96, 64)


@pytest.mark.parametrize("key", ["train_dataloader.batch_size.x", "train_dataloader.dataset.pipeline.99.scale"])
def test_options_must_fit_the_config(key: str) -> None:
    with pytest.raises(ValueError, match="expected --cfg-options to fit the config, got"):
        load_config(str(CONFIGS[RETINANET]), {key: 1})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        (
            "modl.backbone.init_cfg",
            r"got 'modl.backbone.init_cfg', which nothing reads: did you mean model.backbone.in",
        ),
        ("train_confg", "did you mean train_cfg"),
        ("zzz.a", "the config has auto_scale_lr, "),
    ],
)
def test_options_must_begin_with_a_key_of_the_config(key: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        load_config(str(CONFIGS[RETINANET]), {key: 1})


@pytest.mark.parametrize(
    ("config", "options", "advice"),
    [
        (RETINANET, {"data_root": "/data/coco"}, "name the folder with --data-root DIR"),
        (
            RETINANET,
            {"train_pipeline.2.scale": (96, 64)},
            "set train_dataloader.dataset.pipeline.2.scale",
        ),
        (
            RETINANET,
            {"dataset_type": "MyDataset"},
            "set train_dataloader.dataset.type, val_dataloader.dataset.type, test_dataloader.dataset.type",
        ),
        ("bccd", {"max_epochs": 2}, "set train_cfg.max_epochs"),
        (
            RETINANET,
            {"custom_imports.imports": ["mine"]},
            "change the config's file, or a key that the run reads: its work-dir has the config with all of them",
        ),
    ],
)
def test_options_that_change_nothing_are_told(
    config: str, options: dict[str, object], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "configs/dtn_bccd/atss_swin-nano_fpn_24e_bccd.py" if config == "bccd" else CONFIGS[config]
    cfg = load_config(str(path), options)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"warning: --cfg-options {next(iter(options))} changes nothing in the run, for the value of "
    )
    assert line.endswith(f": {advice}")
    without = load_config(str(path))
    assert {key: cfg[key] for key in cfg if key in RUN} == {key: without[key] for key in without if key in RUN}


def test_options_with_an_effect_give_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"train_dataloader.batch_size": 1, "find_unused_parameters": True, "tta_model.type": "x", "work_dir": "a"}
    load_config(str(CONFIGS[RETINANET]), {**options, "train_dataloader.dataset.pipeline.2.scale": (96, 64)})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "key", ["experiment_name", "tta_model.type", "find_unused_parameters", "model_wrapper_cfg.type"]
)
def test_options_may_add_what_mmengine_reads(key: str) -> None:
    assert key.partition(".")[0] in load_config(str(CONFIGS[RETINANET]), {key: "x"})


def test_work_dir_is_the_argument_then_the_configs_then_the_name() -> None:
    cfg = Config({})
    launch.set_work_dir(cfg, "configs/a/name.py", None)
    assert cfg.work_dir == os.path.join("work_dirs", "name")
    launch.set_work_dir(cfg, "configs/a/other.py", None)
    assert cfg.work_dir == os.path.join("work_dirs", "name")
    launch.set_work_dir(cfg, "configs/a/name.py", "elsewhere")
    assert cfg.work_dir == "elsewhere"


def test_data_root_replaces_every_path(coco: Path) -> None:
    cfg = resolve(MASK_RCNN)
    with pytest.raises(FileNotFoundError, match=r"expected the data of train_dataloader at 'data/coco/annotations/ins"):
        launch.check_data(cfg, TRAIN_AND_VAL)
    launch.set_data_root(cfg, str(coco))
    launch.check_data(cfg, [*TRAIN_AND_VAL, "test_dataloader"])
    assert cfg.data_root == f"{coco}/"
    assert cfg.train_dataloader.dataset.data_root == f"{coco}/"
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.ann_file == f"{coco}/annotations/instances_val2017.json"
    assert "data/coco" not in str(
        {key: cfg[key] for key in cfg if key.endswith(("_dataloader", "_evaluator"))}
    ).replace(str(coco), "")


def test_data_root_is_replaced_whatever_the_option_of_its_name(coco: Path) -> None:
    """The option changes nothing, and so it must not hide the folder that the config was written for."""
    cfg = load_config(str(CONFIGS[RETINANET]), {"data_root": "elsewhere/"})
    launch.set_data_root(cfg, str(coco))
    assert cfg.train_dataloader.dataset.data_root == f"{coco}/"


def test_data_root_may_lie_below_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/coco/mini").mkdir(parents=True)
    cfg = resolve(RETINANET)
    launch.set_data_root(cfg, "data/coco/mini")
    assert cfg.test_evaluator.ann_file == "data/coco/mini/annotations/instances_val2017.json"


def test_data_root_needs_no_slash_and_is_no_part_of_a_name(tmp_path: Path) -> None:
    dataset = {"data_root": "data/coco", "ann_file": "data/coco_extra/a.json", "data_prefix": {"img": "data/coco/b"}}
    cfg = Config({"data_root": "data/coco", "train_dataloader": {"dataset": dataset}})
    launch.set_data_root(cfg, str(tmp_path))
    assert cfg.train_dataloader.dataset.to_dict() == {
        "data_root": f"{tmp_path}/",
        "ann_file": "data/coco_extra/a.json",
        "data_prefix": {"img": f"{tmp_path}/b"},
    }


def test_data_root_must_be_a_folder() -> None:
    with pytest.raises(FileNotFoundError, match="expected --data-root to be a folder, got '/nowhere'"):
        launch.set_data_root(resolve(RETINANET), "/nowhere")


def test_data_root_needs_one_to_replace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a config with a top-level data_root"):
        launch.set_data_root(Config({"model": {}}), str(tmp_path))


def test_missing_images_are_named(coco: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").symlink_to(coco / "annotations")
    (tmp_path / "train2017").symlink_to(coco / "train2017")
    cfg = resolve(RETINANET)
    launch.set_data_root(cfg, str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"the data of val_dataloader at '.*val2017/', got nothing there: its f"
    ):
        launch.check_data(cfg, TRAIN_AND_VAL)


def test_the_annotation_files_that_are_there_are_named(coco: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "my_val2017.json").symlink_to(coco / "annotations" / "instances_val2017.json")
    (tmp_path / "annotations" / "captions.json").write_text("{}")
    (tmp_path / "pictures").symlink_to(coco / "val2017")
    cfg = resolve(RETINANET)
    launch.set_data_root(cfg, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"got a folder without annotations/instances_val2017.json") as error:
        launch.check_data(cfg, ["test_dataloader"], str(tmp_path))
    assert "ln -s" not in str(error.value)
    assert "file that is there (annotations/captions.json, annotations/my_val2017.json), such" in str(error.value)
    follow(cfg, str(error.value).partition("--cfg-options ")[2])
    with pytest.raises(
        FileNotFoundError, match=r"without val2017/: .* that is there \(annotations, pictures\)"
    ) as error:
        launch.check_data(cfg, ["test_dataloader"], str(tmp_path))
    follow(cfg, str(error.value).partition("--cfg-options ")[2].replace("FOLDER", "pictures"))
    launch.check_data(cfg, ["test_dataloader"], str(tmp_path))
    assert Path(cfg.test_evaluator.ann_file).is_file()


def follow(cfg: Config, options: str) -> None:
    """Do as a message says."""
    cfg.merge_from_dict(dict(option.split("=") for option in options.split()))


def test_what_the_named_folder_lacks_is_said(
    coco: Path, tmp_path: Path, train_tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_tool.main([str(CONFIGS[RETINANET]), "--data-root", str(tmp_path)]) == 2
    everything = (
        "annotations/instances_train2017.json, train2017/, annotations/instances_val2017.json, val2017/, got a folder "
    )
    assert (
        f"tools/train.py: error: expected --data-root {str(tmp_path)!r} to hold {everything}"
        "without annotations/instances_train2017.json, train2017/, annotations/instances_val2017.json, val2017/: name "
    ) in capsys.readouterr().err
    (tmp_path / "annotations").symlink_to(coco / "annotations")
    (tmp_path / "train2017").symlink_to(coco / "train2017")
    assert train_tool.main([str(CONFIGS[RETINANET]), "--data-root", f"{tmp_path}/"]) == 2
    error = capsys.readouterr().err
    assert f"{everything}without val2017/: name the folder of the dataset in which they lie" in error
    assert "--data-root DIR" not in error


def test_data_beside_the_named_folder_is_named_by_its_path(coco: Path) -> None:
    cfg = resolve(RETINANET)
    launch.set_data_root(cfg, str(coco))
    cfg.train_dataloader.dataset.ann_file = "/nowhere/a.json"
    with pytest.raises(FileNotFoundError, match=r"the data of train_dataloader at '/nowhere/a.json', got nothing"):
        launch.check_data(cfg, TRAIN_AND_VAL, str(coco))


def test_datasets_inside_wrappers_are_checked(coco: Path) -> None:
    cfg = resolve(RETINANET)
    launch.set_data_root(cfg, str(coco))
    good = cfg.train_dataloader.dataset
    bad = {**good, "ann_file": "annotations/other.json"}
    cfg.train_dataloader.dataset = {"type": "RepeatDataset", "times": 2, "dataset": good}
    launch.check_data(cfg, TRAIN_AND_VAL)
    cfg.train_dataloader.dataset = {"type": "ConcatDataset", "datasets": [good, bad]}
    with pytest.raises(FileNotFoundError, match=r"annotations/other.json"):
        launch.check_data(cfg, TRAIN_AND_VAL)


def test_data_on_a_server_is_left_to_its_backend() -> None:
    cfg = resolve(RETINANET)
    cfg.train_dataloader.dataset.data_root = "s3://bucket/coco/"
    launch.check_data(cfg, ["train_dataloader", "no_such_dataloader"])


def test_amp_needs_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = resolve(RETINANET)
    launch.enable_amp(cfg)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale) == ("AmpOptimWrapper", "dynamic")
    monkeypatch.setattr(launch, "_has_accelerator", lambda: True)
    launch.check_amp(cfg)
    monkeypatch.setattr(launch, "_has_accelerator", lambda: False)
    launch.check_amp(resolve(RETINANET))
    with pytest.raises(ValueError, match="expected a GPU for mixed precision"):
        launch.check_amp(cfg)


def test_accelerator_is_what_torch_sees() -> None:
    assert launch._has_accelerator() == torch.cuda.is_available()


def test_auto_scale_lr_needs_the_batch_size_of_the_config() -> None:
    cfg = resolve(RETINANET)
    launch.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable
    with pytest.raises(ValueError, match=r"expected a config with auto_scale_lr.base_batch_size for --auto-scale-lr"):
        launch.enable_auto_scale_lr(Config({"model": {}}))


def test_resume_is_auto_or_a_checkpoint(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "epoch_1.pth")
    cfg = Config({"load_from": "other.pth", "resume": False})
    launch.set_resume(cfg, None)
    assert not cfg.resume
    launch.set_resume(cfg, "auto")
    assert cfg.resume
    assert cfg.load_from is None
    launch.set_resume(cfg, str(tmp_path / "epoch_1.pth"))
    assert cfg.load_from == str(tmp_path / "epoch_1.pth")
    with pytest.raises(FileNotFoundError, match=r"expected a checkpoint, got .*epoch_2.pth.*there are .*epoch_1.pth"):
        launch.set_resume(cfg, str(tmp_path / "epoch_2.pth"))
    whole = (tmp_path / "epoch_1.pth").read_bytes()
    (tmp_path / "epoch_3.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"expected --resume to name a checkpoint .* got .*epoch_3.pth', which is not one"
    ):
        launch.set_resume(cfg, str(tmp_path / "epoch_3.pth"))


def test_checkpoint_may_be_a_url() -> None:
    assert check_checkpoint("https://example.org/weights.pth") == "https://example.org/weights.pth"


def test_checkpoint_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({}, tmp_path / "a.pth")
    assert check_checkpoint("~/a.pth") == "~/a.pth"


def test_checkpoint_must_be_whole(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert check_checkpoint(str(tmp_path / "old.pth")) == str(tmp_path / "old.pth")
    torch.save({"a": torch.ones(3)}, tmp_path / "new.pth")
    whole = (tmp_path / "new.pth").read_bytes()
    cut = "expected a checkpoint, got .*new.pth', which is not one or was cut"
    page = "expected weights as torch.save or safetensors writes them, got .*new.pth, a web page"
    for content, message in ((whole[: len(whole) // 2], cut), (b"", cut), (b"<html>not found</html>", page)):
        (tmp_path / "new.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            check_checkpoint(str(tmp_path / "new.pth"))


def test_a_file_that_is_no_checkpoint_is_not_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A project")
    with pytest.raises(
        CheckpointError,
        match=r"expected a checkpoint that training wrote, a .pth file, got .*README.md', which is not one: name ano",
    ):
        check_checkpoint(str(tmp_path / "README.md"))


def test_output_must_be_a_pickle() -> None:
    cfg = resolve(RETINANET)
    launch.set_output(cfg, None)
    assert isinstance(cfg.test_evaluator, dict)
    launch.set_output(cfg, "out.pkl")
    assert [metric["type"] for metric in cfg.test_evaluator] == ["CocoMetric", "DumpDetResults"]
    with pytest.raises(ValueError, match=r"expected --out to end in .pkl or .pickle, got 'out.json'"):
        launch.set_output(cfg, "out.json")


def test_visualization_needs_its_hook() -> None:
    cfg = resolve(RETINANET)
    launch.enable_visualization(cfg, True, "painted", 3.0)
    hook = cfg.default_hooks.visualization
    assert (hook.draw, hook.show, hook.wait_time, hook.test_out_dir) == (True, True, 3.0, "painted")
    del cfg.default_hooks["visualization"]
    with pytest.raises(ValueError, match=r"expected default_hooks.visualization in the config"):
        launch.enable_visualization(cfg, True, None, 2.0)


def test_tta_merges_boxes_alone() -> None:
    cfg = resolve(RETINANET)
    detector = cfg.model
    enable_tta(cfg)
    assert cfg.model.module.type == detector.type
    assert [step.type for step in cfg.test_dataloader.dataset.pipeline][-1] == "TestTimeAug"
    with pytest.raises(ValueError, match=r"expected an evaluator of boxes for --tta.*test_evaluator.metric=bbox"):
        enable_tta(resolve(MASK_RCNN))


def test_tta_needs_a_pipeline_it_can_end() -> None:
    cfg = resolve(RETINANET)
    del cfg.test_dataloader.dataset.pipeline[-1]
    with pytest.raises(ValueError, match="expected a test pipeline that ends in PackDetInputs, got 'LoadAnnotations'"):
        enable_tta(cfg)


def test_train_tool_reports_errors_and_exits_with_2(train_tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_tool.main(["nowhere.py"]) == 2
    assert "tools/train.py: error: expected a config file, got 'nowhere.py'" in capsys.readouterr().err


def test_test_tool_reports_errors_and_exits_with_2(test_tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert test_tool.main([str(CONFIGS[RETINANET]), "nowhere.pth"]) == 2
    assert "tools/test.py: error: expected a checkpoint, got 'nowhere.pth'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "rest"),
    [
        ("foo", ""),
        ("=1", ""),
        ("a=[1,", r", in which a bracket is open: put quotes around a value with spaces or brackets, key=\"\[a,b\]\""),
        ("a=1)", r", in which a bracket is open: .*"),
    ],
)
@pytest.mark.parametrize("tool", ["train", "test"])
def test_options_must_be_keys_and_values(
    tool: str, option: str, rest: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(CONFIGS[RETINANET])] + ["epoch_1.pth"] * (tool == "test")
    with pytest.raises(SystemExit) as caught:
        request.getfixturevalue(f"{tool}_tool").main([*arguments, "--cfg-options", "b=2", option])
    assert caught.value.code == 2
    expected = rf"tools/{tool}.py: error: expected --cfg-options as key=value, got '{re.escape(option)}'{rest}\n"
    assert re.fullmatch(expected, capsys.readouterr().err)


def test_options_keep_their_types(train_tool: ModuleType) -> None:
    args = train_tool.parse_args(["c.py", "--cfg-options", "a=[1,x]", "b=None", "c=d=e", "--cfg-options", "f=(2,.5)"])
    assert args.cfg_options == {"a": [1, "x"], "b": None, "c": "d=e", "f": (2, 0.5)}


def test_config_may_name_its_own_runner() -> None:
    class OwnRunner:
        @classmethod
        def from_cfg(cls, cfg: Config) -> tuple[type, str]:
            return cls, cfg.launcher

    RUNNERS.register_module(module=OwnRunner)
    try:
        assert launch.build_runner(Config({"runner_type": "OwnRunner"}), "none") == (OwnRunner, "none")
    finally:
        RUNNERS.module_dict.pop("OwnRunner")
