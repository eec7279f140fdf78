"""Every command and every piece of code in the README runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tool_scripts import load_tool
from warm_python import WarmPython

from dtn_det.cli.main import build_parser
from dtn_det.cli.main import main as cli_main

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)
COMMANDS = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines() if line.strip()]
PYTHON = [block for language, block in BLOCKS if language == "python"]

# What shrinks a Swin-T detector's run on tiny images without weights: the command itself stays as it is.
TINY_TRAINING = [
    "train_cfg.max_epochs=1",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "train_dataloader.dataset.pipeline.2.scale=(64,48)",
    "model.backbone.init_cfg=None",
    "env_cfg.dist_cfg.backend=gloo",
]
TINY_TESTING = [
    f"{loader}_dataloader.{option}"
    for loader in ("val", "test")
    for option in ("num_workers=0", "persistent_workers=False", "dataset.pipeline.1.scale=(64,48)")
]


def environment() -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}


def run(command: list[str], cwd: Path = ROOT) -> str:
    """What a command prints in a process of its own."""
    done = subprocess.run(
        command, cwd=cwd, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


class Here:
    """Runs commands in this process, where the libraries are imported already, and returns what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, command: list[str]) -> str:
        self.capsys.readouterr()
        program, *arguments = command
        main = cli_main
        if program == "python":
            script, *arguments = arguments
            main = load_tool(Path(script).stem).main
        code = main(arguments)
        printed = "".join(self.capsys.readouterr())
        assert code == 0, printed[-4000:]
        return printed


def starting(prefix: str) -> list[str]:
    """The README's commands that start so; each test below claims its own."""
    found = [command for command in COMMANDS if command.startswith(prefix)]
    assert found, f"the README has no command that starts with {prefix!r}"
    return found


def test_every_command_is_claimed_by_a_test() -> None:
    claimed = (
        "make ",
        "source ",
        "dtn-det ",
        "python tools/train.py ",
        "python tools/test.py ",
        "bash tools/dist_train.sh ",
    )
    assert [command for command in COMMANDS if not command.startswith(claimed)] == []


@pytest.mark.parametrize("command", starting("make "))
def test_make(command: str) -> None:
    # Running them is what brought us here, or takes minutes: the recipe must exist and expand.
    assert run([*command.split(), "--dry-run"])


def test_activation_is_what_the_set_up_says() -> None:
    (command,) = starting("source ")
    default = re.search(r"^VENV \?= (\S+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert default is not None
    assert command == f"source {default[1]}/bin/activate"
    assert "source $venv/bin/activate" in (ROOT / "tools" / "setup_env.sh").read_text()


@pytest.fixture
def here(checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.chdir(checkout)
    return Here(capsys)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project's tools and configs, and COCO in small."""
    pytest.importorskip("mmdet", reason="training needs MMDetection")
    from tiny_coco import write_coco

    folder = tmp_path_factory.mktemp("checkout")
    for name in ("tools", "configs"):
        (folder / name).symlink_to(ROOT / name)
    write_coco(folder / "coco")
    return folder


@pytest.mark.parametrize(
    "command", [*starting("dtn-det doctor"), *starting("dtn-det demo "), *starting("dtn-det inspect ")]
)
def test_commands_that_other_tests_run_are_understood(command: str) -> None:
    arguments = shlex.split(command)[1:]
    assert build_parser(arguments).parse_args(arguments).command == arguments[0]


def test_complexity_prints_its_table_alone(checkout: Path, warm_libraries: WarmPython) -> None:
    """The command as it is, in a process of its own, in which MMDetection and mmpretrain would print notices."""
    (command,) = starting("dtn-det complexity ")
    program, *arguments = command.split()
    script = shutil.which(program, path=environment()["PATH"])
    assert script is not None
    done = warm_libraries.run([script, *arguments, "--shape", "64", "64"], cwd=checkout, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("MaskRCNN (DTNSwinTransformer)")


@pytest.fixture(scope="module")
def imagenet(checkout: Path) -> Path:
    """Two classes of noise in ImageNet's layout, in the folder where the commands run."""
    for number, wnid in enumerate(("n01440764", "n01443537")):
        folder = checkout / "imagenet" / "val" / wnid
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (240, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"ILSVRC2012_val_0000000{number}.JPEG")
    return checkout / "imagenet" / "val"


@pytest.mark.usefixtures("in_process")
def test_corrupting(checkout: Path, imagenet: Path, here: Here) -> None:
    grid, tree = starting("dtn-det corrupt ")
    photo = next(imagenet.glob("*/*.JPEG"))
    here(shlex.split(grid.replace("photo.jpg", str(photo))))
    assert (checkout / "grid.png").is_file()
    here([*shlex.split(tree.replace("/data/", "")), "--yes", "--corruptions", "fog", "contrast", "--workers", "1"])
    assert len(list((checkout / "imagenet-c").glob("*/*/*/*.JPEG"))) == 2 * 5 * 2


def test_checking(imagenet: Path, here: Here) -> None:
    pytest.importorskip("timm")
    folders, coco = (here(shlex.split(each.replace("/data/", ""))) for each in starting("dtn-det check "))
    assert "fits the model: yes" in folders
    assert coco.count("fits the model: yes") == 2


def test_mce_and_its_report(checkout: Path, imagenet: Path, here: Here) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("plotly")
    (command,) = starting("dtn-det mce ")
    # Small networks without pretrained weights, which would have to be downloaded.
    small = command.replace("/data/", "").replace("resnet50", "resnet18@random")
    small = small.replace("swin_tiny_patch4_window7_224", "mobilenetv3_small_050@random")
    out = here([*shlex.split(small), "--corruptions", "fog", "--severities", "3", "--workers", "0"])
    assert "mCE" in out
    assert "partial" in out
    (report,), (compare,) = starting("dtn-det report "), starting("dtn-det compare ")
    assert "partial" in here(shlex.split(report.replace("/data/", "")))
    page = (checkout / "work_dirs" / "report" / "report.html").read_text()
    assert "resnet18" in page
    for name, ours in (
        ("resnet50", "resnet18@random"),
        ("swin_tiny_patch4_window7_224", "mobilenetv3_small_050@random"),
    ):
        compare = compare.replace(name, ours)
    # Two of ImageNet's 1,000 classes: no CE against AlexNet, whose errors are those of all of them.
    compared = here(shlex.split(compare))
    assert "mean error" in compared
    assert "2 of ImageNet's 1,000 classes" in compared


def test_mpc_of_any_detector(checkout: Path, here: Here, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (command,) = starting("dtn-det mpc torchvision:")
    # Small models without pretrained weights, which would have to be downloaded.
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.YolosConfig(
        **sizes, image_size=[32, 32], patch_size=16, num_detection_tokens=3, id2label={0: "person", 1: "car"}
    )
    transformers.YolosForObjectDetection(config).save_pretrained(tmp_path)
    transformers.YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 32}).save_pretrained(tmp_path)
    small = command.replace("fasterrcnn_resnet50_fpn_v2", "ssdlite320_mobilenet_v3_large@random")
    small = small.replace("/data/", "").replace("PekingU/rtdetr_r50vd", str(tmp_path))
    options = ["--corruptions", "contrast", "--severities", "3", "--workers", "0", "--limit", "1", "--device", "cpu"]
    out = here([*shlex.split(small), *options])
    assert "mPC" in out
    assert "partial" in out


@pytest.mark.slow
def test_mpc(checkout: Path) -> None:
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    (command,) = starting("dtn-det mpc configs/")
    _, _, config, checkpoint, *rest = shlex.split(command.replace("/data/coco", "coco"))
    cfg = Config.fromfile(ROOT / config)
    cfg.model.backbone.init_cfg = None
    init_default_scope("mmdet")
    path = checkout / checkpoint
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict(), "meta": {}}, path)
    options = ["--corruptions", "fog", "--severities", "3", "--workers", "0", "--limit", "2"]
    options += ["--cfg-options", "model.backbone.init_cfg=None", "test_dataloader.dataset.pipeline.1.scale=(64,48)"]
    out = run(["dtn-det", "mpc", config, checkpoint, *rest, *options], checkout)
    assert "mPC" in out
    assert "rPC" in out


def test_import_of_result_files(here: Here, checkout: Path) -> None:
    (command,) = starting("dtn-det import ")
    objects = json.loads((checkout / "coco/annotations/instances_val2017.json").read_text())["annotations"]
    found = [{"score": 0.5, **{key: one[key] for key in ("image_id", "category_id", "bbox")}} for one in objects]
    for name in ("clean", "fog_3"):
        (checkout / "results/yolo").mkdir(parents=True, exist_ok=True)
        (checkout / f"results/yolo/{name}.json").write_text(json.dumps(found))
    printed = here(shlex.split(command.replace("/data/coco", "coco")))
    assert f"yolo: {2 * len(found)} detections (boxes) in" in printed
    assert "74 of 75 conditions" in printed


def adapted(command: str, *options: str) -> list[str]:
    return [*shlex.split(command.replace("/data/coco", "coco")), "--cfg-options", *options]


@pytest.mark.slow
def test_training_and_testing(checkout: Path) -> None:
    (train, _, _), (test,) = starting("python tools/train.py "), starting("python tools/test.py ")
    run(adapted(train, *TINY_TRAINING, *TINY_TESTING), checkout)
    checkpoint = checkout / shlex.split(test)[3]
    checkpoint.with_name("epoch_1.pth").rename(checkpoint)
    assert "Epoch(test) [8/8]" in run(adapted(test, *TINY_TESTING), checkout)


@pytest.mark.slow
def test_training_without_coco(checkout: Path) -> None:
    _, train, _ = starting("python tools/train.py ")
    (draw,) = starting("dtn-det demo ")
    run(draw.split(), checkout)
    assert "coco/bbox_mAP:" in run([*shlex.split(train), "--cfg-options", "train_cfg.max_epochs=1"], checkout)


@pytest.mark.slow
def test_training_on_several_devices(checkout: Path) -> None:
    (command,) = starting("bash tools/dist_train.sh ")
    assert " 8 --amp " in command
    without_gpus = command.replace(" 8 --amp ", " 2 --data-root coco ")
    assert "coco/bbox_mAP:" in run(adapted(without_gpus, *TINY_TRAINING, *TINY_TESTING), checkout)


def test_a_classifier_is_trained_and_exported(checkout: Path, here: Here) -> None:
    pytest.importorskip("mmpretrain.models", reason="the classifier needs mmpretrain")
    pytest.importorskip("onnxruntime")
    for split in ("train", "test"):
        for label in range(10):
            folder = checkout / "cifar10" / split / f"class{label}"
            folder.mkdir(parents=True)
            pixels = np.random.default_rng(label).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "0.png")
    _, _, train = starting("python tools/train.py ")
    (export,) = starting("dtn-det export ")
    config, work = shlex.split(export)[2], Path(shlex.split(export)[3]).parent
    options = ["--cfg-options", "model.model.depth=2"]
    assert "accuracy/top1" in here([*shlex.split(train.replace("/data/", "")), *options])
    # The config of the shallow model, which training has written.
    shallow = export.replace(config, str(work / Path(config).name))
    assert "architecture: dtn_vit_tiny_patch16_224" in here(shlex.split(shallow))
    assert (checkout / "work_dirs" / "export" / "model.onnx").is_file()


def test_a_model_of_timm_is_converted(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    (block,) = [block for block in PYTHON if "convert_norm" in block]
    exec(block, {})
    assert "torch.Size([2, 1000])" in capsys.readouterr().out


def test_config_of_ones_own(tmp_path: Path) -> None:
    pytest.importorskip("mmdet", reason="the config needs MMDetection")
    from mmdet.registry import MODELS
    from mmengine.config import Config

    (block,) = [block for block in PYTHON if "_base_" in block]
    path = tmp_path / "mine.py"
    path.write_text(block)
    backbone = MODELS.build(Config.fromfile(path).model.backbone)
    assert backbone.dtn_stages == (0, 1, 2, 3)


def test_five_lines_of_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in PYTHON if "hw_shape" in block]
    exec(block, {})
    assert "torch.Size([2, 66800, 96])" in capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / "README.md").read_text())
    assert [target for target in targets if not (ROOT / target).exists()] == []
