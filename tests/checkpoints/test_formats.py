"""Formats that are not read are named with the conversion that works, and folders with several sets of weights."""

from __future__ import annotations

import gzip
import json
import re
import runpy
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dtn_det.check import inspect_path
from dtn_det.check.model import Target
from dtn_det.checkpoints.files import check_checkpoint
from dtn_det.checkpoints.formats import other_format
from dtn_det.checkpoints.load import load_weights
from dtn_det.checkpoints.read import read_checkpoint
from dtn_det.errors import CheckpointError


def touch(folder: Path, *names: str, content: bytes = b"") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return path


def numpy_archive(folder: Path) -> Path:
    np.savez(folder / "a.npz", **{"Transformer/encoder_norm/scale": np.ones(2)})
    return folder / "a.npz"


ONNX = b"\x08\x07\x12\x07pytorch"
OTHERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "FSDP": (lambda p: touch(p, ".metadata", "__0_0.distcp"), "a distributed checkpoint of PyTorch"),
    "FSDP within": (
        lambda p: touch(p, "optimizer_0/.metadata", "optimizer_0/__0_0.distcp", "w_0/.metadata", "w_0/__0_0.distcp"),
        r"dcp_to_torch \S+w_0 model\.pth`, and name that file",
    ),
    "FSDP part": (lambda p: touch(p, ".metadata", "__0_0.distcp") / "__0_0.distcp", "a distributed checkpoint"),
    "DeepSpeed": (lambda p: touch(p, "zero_to_fp32.py", "latest"), "run `python zero_to_fp32.py . weights`"),
    "DeepSpeed step": (lambda p: touch(p, "g/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt") / "g", "DeepSpeed"),
    "DeepSpeed file": (
        lambda p: (
            touch(p, "g/zero_pp_rank_1_mp_rank_00_optim_states.pt") / "g/zero_pp_rank_1_mp_rank_00_optim_states.pt"
        ),
        "in the files of several processes",
    ),
    "Orbax": (lambda p: touch(p, "default/_METADATA", "default/manifest.ocdbt"), "Orbax, for JAX"),
    "SavedModel": (lambda p: touch(p, "saved_model.pb", "variables/variables.index"), "SavedModel of TensorFlow"),
    "TensorFlow": (lambda p: touch(p, "model.ckpt-3.index", "model.ckpt-3.data-00000-of-00001"), "of TensorFlow"),
    "TensorFlow file": (
        lambda p: touch(p, "m.ckpt-3.index", "m.ckpt-3.data-00000-of-00001") / "m.ckpt-3.index",
        "of TensorFlow",
    ),
    "Hugging Face TF": (lambda p: touch(p, "config.json", "tf_model.h5"), r"from_pretrained\(FOLDER, from_tf=True\)"),
    "Hugging Face Flax": (lambda p: touch(p, "config.json", "flax_model.msgpack"), r"from_flax=True\)\.save_pretr"),
    "Flax": (lambda p: touch(p, "a.msgpack") / "a.msgpack", "a file of Flax, for JAX"),
    "ONNX": (
        lambda p: touch(p, "a.onnx", content=ONNX) / "a.onnx",
        "in the format ONNX, .* from which it was exported",
    ),
    "GGUF": (lambda p: touch(p, "a.bin", content=b"GGUF\3\0\0\0") / "a.bin", "in the format GGUF"),
    "HDF5": (lambda p: touch(p, "a.h5", content=b"\x89HDF\r\n\x1a\n") / "a.h5", "HDF5, as Keras writes"),
    "Keras": (lambda p: zipped(p / "a.keras", "metadata.json", "model.weights.h5"), "a model of Keras"),
    "NumPy": (numpy_archive, r"an archive of NumPy, .*load_pretrained\(FILE\)"),
    "ZIP": (lambda p: zipped(p / "a.pth", "weights/model.pth"), "unpack it, and name the file in it"),
    "gzip": (lambda p: touch(p, "a.pth", content=gzip.compress(b"a")) / "a.pth", "compressed with gzip: unpack it"),
    "Git LFS": (
        lambda p: (
            touch(p, "a.safetensors", content=b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
            / "a.safetensors"
        ),
        r"a pointer of Git LFS; it is not the file itself: run `git lfs pull`",
    ),
    "web page": (lambda p: touch(p, "a.pth", content=b"\n<!DOCTYPE html><html>") / "a.pth", "a web page; it is not"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_named_by_all_who_read(kind: str, tmp_path: Path) -> None:
    make, told = OTHERS[kind]
    path = make(tmp_path)
    with pytest.raises(CheckpointError, match=told) as error:
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match=told):
        check_checkpoint(str(path))
    (result,) = inspect_path(path)
    assert result.kind == "checkpoint"
    assert re.search(told, result.problems[0])
    assert "damaged" not in str(error.value)
    assert "delete" not in str(error.value)


def test_folders_and_files_of_other_kinds_have_no_such_format(tmp_path: Path) -> None:
    touch(tmp_path, "ant/a.png", "bee/b.png", "config.json", "a.txt", "empty.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "new.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (tmp_path, *tmp_path.iterdir()):
        assert other_format(path) is None


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def same(model: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_conversion_of_a_distributed_checkpoint_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("torch.distributed.checkpoint")
    there, here = layers(), layers()
    distributed.save({"model": there.state_dict()}, checkpoint_id=str(tmp_path / "checkpoint-1" / "model_fsdp_0"))
    with pytest.raises(CheckpointError) as error:
        load_weights(here, str(tmp_path / "checkpoint-1"))
    command = re.search(r"`python -m (\S+) (.+?)`", str(error.value))
    assert command is not None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [command[1], *command[2].split()])
    monkeypatch.delitem(sys.modules, command[1], raising=False)
    runpy.run_module(command[1], run_name="__main__")
    load_weights(here, "model.pth")
    assert same(here, there)


def scripted(model: nn.Module, path: Path) -> None:
    torch.jit.script(model).save(str(path))


def exported(model: nn.Module, path: Path) -> None:
    torch.export.save(torch.export.export(model, (torch.ones(1, 4),)), path)


@pytest.mark.parametrize(("write", "name"), [(scripted, "a.pt"), (exported, "a.pt2")])
@pytest.mark.filterwarnings("ignore")
def test_the_advice_for_programs_of_torch_works(write: Any, name: str, tmp_path: Path) -> None:
    there, here = layers(), layers()
    write(there, tmp_path / name)
    with pytest.raises(CheckpointError) as error:
        load_weights(here, str(tmp_path / name))
    (call,) = re.findall(r"torch\.save\(.*, NEW_FILE\)", str(error.value))
    exec(call, {"torch": torch, "NEW_FILE": tmp_path / "new.pth"})
    load_weights(here, str(tmp_path / "new.pth"))
    assert same(here, there)


def write_both(folder: Path, single: dict, parts: dict, name: str = "model.safetensors") -> None:
    folder.mkdir(exist_ok=True)
    save = {"model.safetensors": save_file, "pytorch_model.bin": torch.save}[name]
    save(single, folder / name)
    half = len(parts) // 2
    places = {}
    for number, names in enumerate((list(parts)[:half], list(parts)[half:]), 1):
        part = f"model-{number:05}-of-00002.safetensors"
        save_file({name: parts[name] for name in names}, folder / part)
        places |= dict.fromkeys(names, part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_of_a_file_and_parts_the_file_is_taken_and_told(tmp_path: Path) -> None:
    single, parts, here = layers(), layers(), layers()
    write_both(tmp_path, single.state_dict(), parts.state_dict())
    (remark,) = load_weights(here, str(tmp_path)).remarks
    assert same(here, single)
    assert (remark.kind, remark.count, remark.examples) == ("folder_files", 2, ("model.safetensors.index.json",))
    assert "model.safetensors was taken" in remark.what
    (result,) = inspect_path(tmp_path)
    assert [told.kind for told in result.remarks] == ["folder_files"]
    assert load_weights(here, str(tmp_path / "model.safetensors.index.json")).remarks == ()
    assert same(here, parts)


@pytest.mark.parametrize(("name", "taken"), [("model.safetensors", "single"), ("pytorch_model.bin", "parts")])
def test_all_who_take_a_folder_take_the_same_file(name: str, taken: str, tmp_path: Path) -> None:
    """As transformers: ``model.safetensors``, its parts, ``pytorch_model.bin``, its parts."""
    timm = pytest.importorskip("timm")
    from dtn_det.robustness.classification.models.loading import load_classifier

    models = {one: timm.create_model("test_vit", num_classes=3) for one in ("single", "parts")}
    write_both(tmp_path, models["single"].state_dict(), models["parts"].state_dict(), name)
    own = {"num_classes": 3, "input_size": (3, 160, 160), "fixed_input_size": True}
    settings = {"architecture": "test_vit", "num_classes": 3, "pretrained_cfg": own}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    for source in (f"timm:test_vit@{tmp_path}", f"timm:local-dir:{tmp_path}"):
        classifier = load_classifier(source, 3)
        assert same(models[taken], classifier.network)
        assert [remark.kind for remark in classifier.remarks] == ["folder_files"]
    (result,) = inspect_path(tmp_path, Target(f"timm:local-dir:{tmp_path}"))
    assert (result.fits, [remark.kind for remark in result.remarks]) == (True, ["folder_files"])
