"""`dtn-det inspect` from the command line: detectors, classifiers, and what may be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmdet", reason="detectors need MMDetection")

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

import dtn_det.backbones  # noqa: F401  (registers the backbones)
from dtn_det.cli.main import main
from dtn_det.inspection import load_subject, look, write
from dtn_det.inspection.subject import check_image

ROOT = Path(__file__).resolve().parents[2]
DTN = str(ROOT / "configs" / "dtn_demo" / "atss_dtn-swin-nano_fpn_shapes.py")
LN = str(ROOT / "configs" / "dtn_demo" / "atss_swin-nano_fpn_shapes.py")
CIFAR = str(ROOT / "configs" / "dtn_cifar" / "dtn-swin-pico-p4-w4_8e_cifar10.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inspect")


@pytest.fixture(scope="module")
def photo(folder: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return str(folder / "photo.png")


def save(model: torch.nn.Module, path: Path) -> str:
    torch.save({"state_dict": model.state_dict(), "meta": {}}, path)
    return str(path)


def checkpoint_of(config: str, path: Path) -> str:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return save(MODELS.build(Config.fromfile(config).model), path)


@pytest.fixture(scope="module")
def dtn(folder: Path) -> str:
    return checkpoint_of(DTN, folder / "dtn.pth")


@pytest.fixture(scope="module")
def ln(folder: Path) -> str:
    return checkpoint_of(LN, folder / "ln.pth")


def inspect(*arguments: str | Path) -> int:
    return main(["inspect", *map(str, arguments)])


def test_a_detector_with_dtn(dtn: str, photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect(DTN, dtn, photo, "--out", tmp_path / "out", "--blocks", "backbone.stages.[13].*") == 0
    first, note, *files = capfd.readouterr().out.splitlines()
    assert first == "5 blocks, 10 norms DTN, 0 LayerNorm"
    assert note.startswith("no class token: ")
    assert [Path(line).name for line in files] == sorted(path.name for path in (tmp_path / "out").iterdir())
    facts = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert facts["model"] == "atss_dtn-swin-nano_fpn_shapes"
    assert facts["drawn_blocks"] == ["backbone.stages.1.blocks.0", "backbone.stages.3.blocks.0"]
    assert facts["image_size"] == [60, 90]
    assert facts["seen_size"] == [107, 160]
    assert facts["input_size"] == [108, 160]


def test_a_detector_with_layer_norm(
    ln: str, photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "rendered", lambda *_: {"pdf": b""})
    assert inspect(LN, ln, photo, "--out", tmp_path, "--blocks", "*.3.blocks.0", "--norm", "norm2") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == [
        "5 blocks, 0 norms DTN, 10 LayerNorm",
        "no gates and no kernels: every norm of the blocks is LayerNorm",
    ]
    assert not list(tmp_path.glob("gates*"))
    assert not list(tmp_path.glob("kernel*"))


def test_the_network_sees_what_it_sees_in_a_test(dtn: str, photo: str) -> None:
    """Resized, not flipped, in the detector's order of channels, padded and normalised by its preprocessor."""
    subject = load_subject(DTN, dtn, photo)
    expected = np.asarray(Image.open(photo).resize((160, 107), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(subject.picture - expected).max() <= 2  # OpenCV rounds otherwise than Pillow
    seen: list[torch.Tensor] = []
    handle = subject.network.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        subject.run()
    handle.remove()
    preprocessor = subject.network.data_preprocessor
    rgb = (torch.from_numpy(subject.picture).permute(2, 0, 1) - preprocessor.mean) / preprocessor.std
    torch.testing.assert_close(seen[0][0, :, :107], rgb)
    assert not subject.network.training


def test_no_scope_stays_behind(dtn: str, photo: str) -> None:
    with DefaultScope.overwrite_default_scope("mmengine"):
        load_subject(DTN, dtn, photo)
        assert DefaultScope.get_current_instance().scope_name == "mmengine"


def test_a_classifier_of_mmpretrain(photo: str, tmp_path: Path) -> None:
    pytest.importorskip("mmpretrain")
    from mmpretrain.registry import MODELS as CLASSIFIERS

    cfg = Config.fromfile(CIFAR)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        checkpoint = save(CLASSIFIERS.build(cfg.model), tmp_path / "cifar.pth")
    looks = look(load_subject(CIFAR, checkpoint, photo))
    assert [block.name for block in looks.blocks] == ["backbone.stages.0.blocks.0", "backbone.stages.1.blocks.0"]
    assert looks.has_dtn
    assert looks.subject.picture.shape == (60, 90, 3)


def test_a_classifier_of_timm(photo: str) -> None:
    pytest.importorskip("timm")
    looks = look(load_subject("timm:deit_tiny_distilled_patch16_224", "random", photo))
    assert looks.has_class_token
    assert len(looks.blocks) == 12
    assert looks.blocks[0].attention.class_map.shape == (3, 14, 14)
    # The distillation token takes part of the attention, and has no place on the map.
    assert (looks.blocks[0].attention.on_map < 1).all()


def failing(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert inspect(*arguments) == 1
    err = capfd.readouterr().err
    assert "Traceback" not in err
    line = next(line for line in err.splitlines() if line.startswith("dtn-det: error: "))
    return line.removeprefix("dtn-det: error: ")


def test_missing_files(dtn: str, photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = ("--out", tmp_path / "out")
    assert failing(capfd, "no.py", dtn, photo, *out).startswith("expected a config file, got 'no.py': there is no such")
    message = failing(capfd, DTN, "no.pth", photo, *out)
    assert message.startswith("expected a checkpoint, got 'no.pth': there is no such file")
    message = failing(capfd, DTN, dtn, "no.jpg", *out)
    assert message == "expected an image, got 'no.jpg', which is nothing there: name a JPEG or PNG file"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["text", "cut off", "folder"])
def test_wrong_images(kind: str, dtn: str, photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.png"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"no image" if kind == "text" else Path(photo).read_bytes()[:4000])
    message = failing(capfd, DTN, dtn, path, "--out", tmp_path / "out")
    assert message.startswith(f"expected an image, got '{path}', which ")
    assert ("is a folder: name a JPEG" if kind == "folder" else "cannot be read (") in message


def test_a_config_without_our_backbone(photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cfg = Config.fromfile(LN)
    cfg.model.backbone = {"type": "ResNet", "depth": 18}
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    cfg.dump(tmp_path / "resnet.py")
    checkpoint = checkpoint_of(str(tmp_path / "resnet.py"), tmp_path / "resnet.pth")
    message = failing(capfd, tmp_path / "resnet.py", checkpoint, photo, "--out", tmp_path / "out")
    assert message.startswith("expected a backbone with Swin's, PVT's or ViT's blocks in resnet, got ResNet: name a ")
    example = message.split(" such as ")[1]
    assert (ROOT / example).is_file()


def test_a_checkpoint_that_does_not_fit(ln: str, photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = failing(capfd, DTN, ln, photo, "--out", tmp_path)
    assert message.startswith(f"expected the weights of ATSS with DTNSwinTransformer in {ln}, got others: ")


DETECTOR = "model = dict(type='ATSS')\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "expected a config with a model, got {path} without: name that of a detector or classifier"),
        (DETECTOR, "expected one data set with a pipeline in test_dataloader of {path}, got none"),
        (
            DETECTOR + "test_dataloader = dict(dataset=dict(pipeline=[dict(type='Resize', scale=9)]))",
            "expected a test pipeline with one LoadImageFromFile, got Resize",
        ),
        (
            DETECTOR + "test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), "
            "dict(type='LoadProposals')]))",
            "expected the test pipeline of {path} to take {photo!r}, got KeyError: 'proposals': name a ",
        ),
        (
            DETECTOR + "test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')]))",
            "expected the test pipeline of {path} to end in PackDetInputs with one image, got another end: leave ",
        ),
    ],
)
def test_configs_that_cannot_be_looked_at(
    text: str, message: str, dtn: str, photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.py"
    path.write_text(text)
    found = failing(capfd, path, dtn, photo, "--out", tmp_path / "out")
    assert found.startswith(message.format(path=path, photo=photo))


def test_a_wrapper_of_a_detector(photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Wrapper(torch.nn.Module):
        def __init__(self, **_: object) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(1, 1)

    MODELS.register_module(name="WrapperOfTheTest", module=Wrapper, force=True)
    cfg = Config.fromfile(LN)
    cfg.model = {"type": "WrapperOfTheTest"}
    cfg.dump(tmp_path / "wrapper.py")
    message = failing(
        capfd, tmp_path / "wrapper.py", save(Wrapper(), tmp_path / "w.pth"), photo, "--out", tmp_path / "out"
    )
    assert message.startswith(f"expected a detector with a backbone in {tmp_path / 'wrapper.py'}, got Wrapper without:")


def test_a_file_in_place_of_the_folder(dtn: str, photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    message = failing(capfd, DTN, dtn, photo, "--out", tmp_path / "file")
    assert message == f"expected --out to be a folder, got the file {tmp_path / 'file'}: name another"


def test_blocks_that_do_not_exist(dtn: str, photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = failing(capfd, DTN, dtn, photo, "--out", tmp_path, "--blocks", "stages.0")
    assert message.startswith(
        "expected --blocks to name blocks of the model, got 'stages.0': it has backbone.stages.0."
    )


def test_a_device_that_does_not_exist(dtn: str, photo: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = failing(capfd, DTN, dtn, photo, "--out", tmp_path, "--device", "nonsense")
    assert message == "expected a device such as cpu, cuda or cuda:1, got 'nonsense'"


def test_the_size_of_an_image(photo: str) -> None:
    assert check_image(photo) == (60, 90)
