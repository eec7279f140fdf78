"""Small data sets become folders of classes: from made-up archives of each form, resumed, and with wrong files."""

from __future__ import annotations

import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tool_scripts import load_tool

PER_BATCH = 3


@pytest.fixture
def tool() -> ModuleType:
    return load_tool("prepare_small_data")


def pixels(seed: int, number: int = PER_BATCH) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(number, 3072), dtype=np.uint8)


def tar(path: Path, folder: str, files: dict[str, Any]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def cifar10_files() -> dict[str, Any]:
    batches = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    files: dict[str, Any] = {name: {"data": pixels(i), "labels": [0, 1, 1]} for i, name in enumerate(batches)}
    return {"batches.meta": {"label_names": ["airplane", "automobile"]}, **files}


def cifar100_files() -> dict[str, Any]:
    files = {name: {"data": pixels(i), "fine_labels": [0, 1, 1]} for i, name in enumerate(("train", "test"))}
    return {"meta": {"fine_label_names": ["apple", "aquarium_fish"]}, **files}


def write_svhn(folder: Path) -> Path:
    savemat = pytest.importorskip("scipy.io").savemat
    folder.mkdir()
    for seed, split in enumerate(("train", "test")):
        images = np.moveaxis(pixels(seed).reshape(-1, 32, 32, 3), 0, 3)
        savemat(folder / f"{split}_32x32.mat", {"X": images, "y": np.array([[10], [1], [9]], dtype=np.uint8)})
    return folder


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), seed, dtype=np.uint8)).save(stream, format="jpeg")
    return stream.getvalue()


def write_tiny_imagenet(path: Path, classes: tuple[str, ...] = ("n01", "n02")) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        root = "tiny-imagenet-200"
        archive.writestr(f"{root}/wnids.txt", "n02\nn01\n")
        for index, name in enumerate(("n01", "n02")):
            archive.writestr(f"{root}/train/{name}/{name}_boxes.txt", "boxes")
            archive.writestr(f"{root}/train/{name}/images/{name}_0.JPEG", jpeg(index))
        archive.writestr(
            f"{root}/val/val_annotations.txt",
            "".join(f"val_{index}.JPEG\t{name}\t0\t0\t63\t63\n" for index, name in enumerate(classes)),
        )
        for index in range(len(classes)):
            archive.writestr(f"{root}/val/images/val_{index}.JPEG", jpeg(10 + index))
        archive.writestr(f"{root}/test/images/test_0.JPEG", jpeg(99))
    return path


def written(out: Path) -> list[str]:
    return sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())


def run(tool: ModuleType, dataset: str, source: Path, out: Path) -> int:
    return tool.main([dataset, str(source), str(out)])


def test_cifar10(tool: ModuleType, tmp_path: Path) -> None:
    archive = tar(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", cifar10_files())
    assert run(tool, "cifar10", archive, tmp_path / "out") == 0
    files = written(tmp_path / "out")
    assert len([name for name in files if name.startswith("train/")]) == 5 * PER_BATCH
    assert [name for name in files if name.startswith("test/")] == [
        "test/airplane/test_batch_00000.png",
        "test/automobile/test_batch_00001.png",
        "test/automobile/test_batch_00002.png",
    ]
    image = np.array(Image.open(tmp_path / "out" / "train" / "automobile" / "data_batch_2_00001.png"))
    assert np.array_equal(image, pixels(1)[1].reshape(3, 32, 32).transpose(1, 2, 0))


def test_cifar100_also_from_its_folder(tool: ModuleType, tmp_path: Path) -> None:
    archive = tar(tmp_path / "cifar-100-python.tar.gz", "cifar-100-python", cifar100_files())
    assert run(tool, "cifar100", archive, tmp_path / "out") == 0
    with tarfile.open(archive) as content:
        content.extractall(tmp_path / "folder", filter="data")
    assert run(tool, "cifar100", tmp_path / "folder", tmp_path / "other") == 0
    assert written(tmp_path / "out") == written(tmp_path / "other")
    assert "test/aquarium_fish/test_00001.png" in written(tmp_path / "out")


def test_svhn_whose_ten_is_a_zero(tool: ModuleType, tmp_path: Path) -> None:
    assert run(tool, "svhn", write_svhn(tmp_path / "svhn"), tmp_path / "out") == 0
    assert written(tmp_path / "out") == sorted(
        f"{split}/{label}/{index:06}.png" for split in ("train", "test") for index, label in enumerate((0, 1, 9))
    )
    image = np.array(Image.open(tmp_path / "out" / "test" / "1" / "000001.png"))
    assert np.array_equal(image, pixels(1)[1].reshape(32, 32, 3))


def test_tiny_imagenet_is_tested_on_its_validation_set(tool: ModuleType, tmp_path: Path) -> None:
    archive = write_tiny_imagenet(tmp_path / "tiny-imagenet-200.zip", ("n02", "n01"))
    assert run(tool, "tiny-imagenet", archive, tmp_path / "out") == 0
    expected = ["test/n01/val_1.JPEG", "test/n02/val_0.JPEG", "train/n01/n01_0.JPEG", "train/n02/n02_0.JPEG"]
    assert written(tmp_path / "out") == expected
    assert (tmp_path / "out" / "test" / "n02" / "val_0.JPEG").read_bytes() == jpeg(10)


def test_a_stopped_run_goes_on(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tar(tmp_path / "cifar.tar.gz", "cifar-100-python", cifar100_files())
    out = tmp_path / "out"
    run(tool, "cifar100", archive, out)
    assert f"6 images in {out}, 6 of them new" in capsys.readouterr().out
    (out / "train" / "apple" / "train_00000.png").unlink()
    kept = out / "test" / "apple" / "test_00000.png"
    kept.write_bytes(b"kept")
    run(tool, "cifar100", archive, out)
    assert f"6 images in {out}, 1 of them new" in capsys.readouterr().out
    assert kept.read_bytes() == b"kept"
    assert len(written(out)) == 6


def test_a_file_is_there_as_a_whole_or_not_at_all(tool: ModuleType, tmp_path: Path) -> None:
    def broken() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tool.write([tool.Sample(Path("a.png"), lambda: b"a"), tool.Sample(Path("b.png"), broken)], tmp_path)
    assert written(tmp_path) == ["a.png"]


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch harmed",)


def wrong_cifar(**changed: Any) -> Callable[[Path], Path]:
    return lambda folder: tar(folder / "c.tar.gz", "cifar-10-batches-py", {**cifar10_files(), **changed})


def cut_off(folder: Path) -> Path:
    archive = wrong_cifar()(folder)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    return archive


def text(folder: Path) -> Path:
    (folder / "c.tar.gz").write_text("<html>404</html>")
    return folder / "c.tar.gz"


def no_mat(folder: Path) -> Path:
    for split in ("train", "test"):
        (folder / f"{split}_32x32.mat").write_text("none" * 100)
    return folder


def mat_of_another(folder: Path) -> Path:
    savemat = pytest.importorskip("scipy.io").savemat
    for split in ("train", "test"):
        savemat(folder / f"{split}_32x32.mat", {"X": np.zeros((4, 4, 3, 2)), "y": np.zeros((2, 1))})
    return folder


def no_images(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "t.zip", "w") as archive:
        archive.writestr("tiny/wnids.txt", "n01")
        archive.writestr("tiny/val/val_annotations.txt", "")
    return folder / "t.zip"


WRONG = [
    ("cifar10", lambda folder: folder / "none.tar.gz", r"expected an archive or a folder, got .* no such file"),
    ("cifar10", text, "expected a tar or ZIP archive, or a folder, got .*, which is not one or was cut off"),
    ("cifar10", cut_off, r"expected a whole archive, got .*: fetch it again"),
    (
        "cifar100",
        lambda folder: tar(folder / "c.tar.gz", "cifar-10-batches-py", cifar10_files()),
        r"expected one file meta in .*, got none: is it the right archive\?",
    ),
    (
        "cifar10",
        wrong_cifar(data_batch_2={"data": pixels(0), "fine_labels": [0, 0, 0]}),
        r"expected N x 3072 pixels and N labels in data_batch_2, got pixels \(3, 3072\) and None labels",
    ),
    (
        "cifar10",
        wrong_cifar(data_batch_3={"data": pixels(0, 2), "labels": [0, 0, 0]}),
        r"in data_batch_3, got pixels \(2, 3072\) and 3 labels",
    ),
    (
        "cifar10",
        wrong_cifar(test_batch={"data": pixels(0), "labels": [0, 2, 1]}),
        r"expected labels of 0 to 1 in test_batch, got 2: fetch it again",
    ),
    ("cifar10", wrong_cifar(test_batch=b"no pickle"), r"expected CIFAR's batch test_batch in .*, got another"),
    ("cifar10", wrong_cifar(test_batch=[1]), r"expected CIFAR's batch test_batch in .*, got list"),
    ("cifar10", wrong_cifar(test_batch=Harmful()), r"got another \(.*system has no place in it\)"),
    ("svhn", no_mat, r"expected SVHN's train_32x32.mat, got a file that cannot be read"),
    ("svhn", mat_of_another, r"expected X of 32 x 32 x 3 x N and N labels y in train_32x32.mat, got \["),
    (
        "tiny-imagenet",
        lambda folder: write_tiny_imagenet(folder / "t.zip", ("n03",)),
        r"expected classes of wnids.txt in val_annotations.txt, got n03",
    ),
    ("tiny-imagenet", no_images, r"expected images in .*, got none"),
]


@pytest.mark.parametrize(("dataset", "make", "message"), WRONG)
def test_wrong_files_are_named(
    dataset: str,
    make: Callable[[Path], Path],
    message: str,
    tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if dataset == "svhn":
        pytest.importorskip("scipy.io")
    monkeypatch.chdir(tmp_path)
    assert run(tool, dataset, make(tmp_path), tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("tools/prepare_small_data.py: error: expected")
    assert re.search(message, error), error
    assert not (tmp_path / "harmed").exists()


def test_svhn_without_scipy_says_what_to_install(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert run(tool, "svhn", no_mat(tmp_path), tmp_path / "out") == 2
    assert "SVHN's .mat files need `scipy`: pip install scipy" in capsys.readouterr().err


def test_it_needs_nothing_of_the_project(tmp_path: Path) -> None:
    archive = tar(tmp_path / "c.tar.gz", "cifar-100-python", cifar100_files())
    script = Path(__file__).resolve().parents[2] / "tools" / "prepare_small_data.py"
    blocked = "import sys; sys.modules.update(torch=None, dtn_det=None); import runpy; sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", f"{blocked}runpy.run_path(sys.argv[0], run_name='__main__')", str(script)]
    result = subprocess.run(
        [*command, "cifar100", str(archive), str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(written(tmp_path / "out")) == 6
