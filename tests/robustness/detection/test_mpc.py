from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet", reason="detectors need MMDetection")

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from ranks import run_ranks

from dtn_det.cli.main import main
from dtn_det.corruptions import Corruptor
from dtn_det.corruptions.cells import Cell, sweep_cells
from dtn_det.errors import StoreError
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.formats.markdown import markdown
from dtn_det.reports.tables.summary import model_table
from dtn_det.robustness.detection import data as detection_data
from dtn_det.robustness.detection.evaluation import read_cells
from dtn_det.robustness.detection.models import mmdetection
from dtn_det.robustness.detection.models.mmdetection import MMDetector, build_detector
from dtn_det.robustness.store import Store
from dtn_det.robustness.sweep import run_sweep

FEW = ("--corruptions", "fog", "impulse_noise", "--severities", "2", "5", "--unit-size", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def finished(detector, tmp_path_factory) -> Path:
    """A store of the few cells, made in one process."""
    folder = tmp_path_factory.mktemp("results") / "store"
    assert mpc(detector, folder) == 0
    return folder


def mpc(detector, folder, *more: str, few=FEW) -> int:
    return main(["mpc", *detector, "--store", str(folder), "--workers", "0", *few, *more])


def failed(capsys, detector, folder, *more: str, few=FEW) -> str:
    capsys.readouterr()
    assert mpc(detector, folder, *more, few=few) == 1
    return capsys.readouterr().err


def test_facts_of_the_detector_reach_the_report(finished) -> None:
    (model,) = Store.open(finished).models().values()
    facts = model.manifest.facts
    assert facts.flops > 1e6
    assert min(map(int, facts.flops_at.split("x"))) >= 32
    report = collect([finished], ReportOptions(replicates=0))
    assert (report.models[0].flops, report.models[0].flops_at) == (facts.flops, facts.flops_at)
    assert f" {facts.flops_at} " in markdown(model_table(report))


def units(folder: Path) -> dict[str, str]:
    """The hash of each unit's file: pytest takes minutes to show how two large files differ."""
    files = sorted(folder.glob("models/*/unit-*.parquet"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def command(detector, folder, *more: str) -> list[str]:
    return ["-m", "dtn_det.cli.main", "mpc", *detector, "--store", str(folder), *FEW, *more]


def test_detections_are_those_of_mmdetection_with_the_corruption_in_its_pipeline(finished, detector):
    store = Store.open(finished)
    (model,) = store.models().values()
    cfg = Config.fromfile(detector[0])
    settings = cfg.test_dataloader.dataset
    step = {"type": "ImageCorruption", "corruption": "impulse_noise", "severity": 5}
    data = detection_data.read_data(cfg, "test")
    tiny = build_detector(cfg, detector[1], torch.device("cpu")).model
    cell = store.manifest.cells.index(Cell("impulse_noise", 5))
    (found,) = read_cells(model, [cell])
    init_default_scope("mmdet")
    for corrupted, number_of_cell in ((False, 0), (True, cell)):
        pipeline = Compose([settings.pipeline[0], *([step] if corrupted else []), *settings.pipeline[1:]])
        (found,) = read_cells(model, [number_of_cell])
        for number in range(5):
            packed = pipeline(data.dataset.get_data_info(number))
            with torch.no_grad():
                (sample,) = tiny.test_step({"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]})
            own = found.image == number
            expected = sample.pred_instances
            assert own.sum() == len(expected) > 0
            # A batch of several conditions and one of a single image differ in the last bits.
            np.testing.assert_allclose(found.boxes[own], expected.bboxes.numpy(), atol=1e-3)
            np.testing.assert_allclose(found.scores[own], expected.scores.numpy(), atol=1e-5)
            np.testing.assert_array_equal(found.labels[own], expected.labels.numpy())


def test_every_image_is_loaded_once_and_has_a_row_for_each_cell(finished, detector, coco, monkeypatch):
    data = detection_data.read_data(Config.fromfile(detector[0]), "test")
    images = data.images(sweep_cells(["fog"], [1, 2]), Corruptor("coco-c"))
    calls = []
    (step,) = images.forms[0].load
    load = step.transform
    monkeypatch.setattr(step, "transform", lambda results: calls.append(1) or load(results))
    item = images[1]
    assert len(calls) == 1
    assert item.packed[0].inputs.shape[0] == 3
    assert not torch.equal(item.packed[0].inputs[0], item.packed[0].inputs[1])
    (model,) = Store.open(finished).models().values()
    rows = [(row["image"], row["cell"]) for table in model.batches(["image", "cell"]) for row in table.to_pylist()]
    assert sorted(rows) == [(image, cell) for image in range(5) for cell in range(5)]


def test_tables_mark_what_is_partial(finished, detector, capsys):
    capsys.readouterr()
    assert mpc(detector, finished) == 0
    text, progress = capsys.readouterr()
    assert "3 of 3 units are done already" in progress
    assert "5 of 5 cells" in progress
    assert "partial (4/75)" in text
    assert "Boxes: every average precision" in text
    assert "Masks: every average precision" in text
    assert "coco-c no-jpeg rgb seed=0" in text


def test_a_limit_is_a_fixed_subset_and_marks_every_number(detector, tmp_path, capsys):
    few = ("--corruptions", "fog", "--severities", "1", "--limit", "2", "--device", "cpu")
    assert mpc(detector, tmp_path / "a", few=few) == 0
    text = " ".join(capsys.readouterr().out.split())
    titles = [title for kind in ("Boxes: every", "Masks: every", "of tiny under") for title in text.split(kind)[1:]]
    assert len(titles) == 4
    assert all("partial (limit=2 of 5 seed=0)" in title[:90] for title in titles)


def test_a_run_killed_on_the_way_continues_with_identical_records(finished, detector, tmp_path, warm_mmdet):
    folder = tmp_path / "store"
    with warm_mmdet.popen(
        command(detector, folder, "--workers", "0"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while process.poll() is None and not units(folder):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    first = units(folder)
    assert first
    assert mpc(detector, folder) == 0
    assert units(folder) == units(finished)
    assert first.items() <= units(folder).items()


def test_two_processes_give_the_records_of_one(finished, detector, tmp_path, warm_mmdet):
    folder = tmp_path / "store"
    printed = run_ranks(warm_mmdet, command(detector, folder, "--workers", "0", "--launcher", "pytorch"))
    assert units(folder) == units(finished)
    assert [text.count("Boxes: every average precision") for text in printed] == [1, 0]


def test_a_checkpoint_that_does_not_fit(detector, tmp_path, capsys):
    state = torch.load(detector[1])["state_dict"]
    wrong = tmp_path / "wrong.pth"
    torch.save({"state_dict": {("extra.key" if "fc_cls.bias" in key else key): v for key, v in state.items()}}, wrong)
    text = failed(capsys, (detector[0], str(wrong)), tmp_path / "store")
    assert "1 missing (roi_head.bbox_head.fc_cls.bias)" in text
    assert "1 unexpected (extra.key)" in text
    assert not (tmp_path / "store").exists()
    torch.save({"state_dict": {key: value[..., :1] for key, value in state.items()}}, wrong)
    assert " of another shape (" in failed(capsys, (detector[0], str(wrong)), tmp_path / "store")
    torch.save({"meta": {}}, wrong)
    assert "expected a state dict" in failed(capsys, (detector[0], str(wrong)), tmp_path / "store")


def test_a_checkpoint_of_an_order_that_cannot_be_known(finished, detector, tmp_path, capsys):
    content = torch.load(detector[1])
    content["meta"] = {"dataset_meta": {"classes": ("disc", "bar", "square")}}
    other = tmp_path / "tiny.pth"
    torch.save(content, other)
    text = failed(capsys, (detector[0], str(other)), finished)
    assert "in the order of the classes of" in text
    assert "got 'square' for 'bar', 'bar' for 'square' in place 1 and later" in text


def test_a_model_cannot_be_begun_anew_while_a_run_is_at_work(finished, tmp_path):
    store = Store.open(shutil.copytree(finished, tmp_path / "store"))
    (model,) = store.models().values()
    for path in model.folder.glob("unit-*"):
        path.unlink()
    other = dataclasses.replace(model.manifest, weights_hash="other")
    with store.writing(), pytest.raises(ValueError, match="got another dtn-det at work there"):
        store.add_model(other)
    store.add_model(other)
    with pytest.raises(StoreError, match="got one that another run has begun since"):
        run_sweep(store, [model], None, workers=0)


def test_other_settings_refuse_to_mix(finished, detector, capsys):
    assert "corruption: the store has" in failed(capsys, detector, finished, "--seed", "1")
    assert "corruption: the store has" in failed(capsys, detector, finished, "--channel-order", "bgr")
    assert "selection: the store has 'all'" in failed(capsys, detector, finished, "--limit", "2")
    assert "batch_size: the store has '4', this run '3'" in failed(capsys, detector, finished, "--batch-size", "3")
    text = failed(capsys, detector, finished, "--cfg-options", "model.test_cfg.rcnn.score_thr=0.5")
    assert "model_settings" in text


def test_a_store_of_another_version(finished, detector, tmp_path, capsys):
    copy = shutil.copytree(finished, tmp_path / "store")
    path = copy / "store.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    assert "got format 99" in failed(capsys, detector, copy)


def test_missing_annotations_and_images(detector, coco, tmp_path, capsys):
    root = shutil.copytree(coco, tmp_path / "coco")
    (root / "images" / "000000000017.jpg").unlink()
    text = failed(capsys, detector, tmp_path / "store", "--data-root", str(root))
    assert "got 1 of 5 missing" in text
    (root / "coco.json").write_text("{}")
    text = failed(capsys, detector, tmp_path / "store", "--data-root", str(root))
    assert "expected images in" in text
    (root / "coco.json").unlink()
    text = failed(capsys, detector, tmp_path / "store", "--data-root", str(root))
    assert f"expected --data-root {str(root)!r} to hold coco.json" in text


def test_an_empty_data_set_and_other_categories(detector, coco, tmp_path, capsys):
    root = shutil.copytree(coco, tmp_path / "coco")
    whole = (root / "coco.json").read_text()
    (root / "coco.json").write_text(whole.replace('"disc"', '"ball"'))
    text = failed(capsys, detector, tmp_path / "store", "--data-root", str(root))
    assert "expected the 3 classes of the config among the categories in" in text
    assert "got 3 without 'disc'" in text
    (root / "coco.json").write_text('{"images": [], "annotations": [], "categories": ' + whole[whole.rindex("[") :])
    text = failed(capsys, detector, tmp_path / "store", "--data-root", str(root))
    assert "expected images in" in text
    text = failed(capsys, detector, tmp_path / "store", "--limit", "0")
    assert "expected a limit of at least 1 image, got 0" in text


@pytest.mark.parametrize("fault", ["cut off", "empty", "other size", "no image"])
def test_bad_images_fail_or_are_recorded(fault, detector, coco, tmp_path, capsys):
    root = shutil.copytree(coco, tmp_path / "coco")
    image = root / "images" / "000000000037.jpg"
    content = image.read_bytes()
    other = (root / "images" / "000000000017.jpg").read_bytes()
    image.write_bytes({"cut off": content[:-400], "empty": b"", "other size": other, "no image": b"text"}[fault])
    folder = tmp_path / "store"
    text = failed(capsys, detector, folder, "--data-root", str(root))
    assert "000000000037.jpg" in text
    assert "--on-bad-image record" in text
    # Sizes are compared before the first image; of the other faults, the unit before the image is kept.
    assert len(units(folder)) == (0 if fault == "other size" else 1)
    assert mpc(detector, folder, "--data-root", str(root), "--on-bad-image", "record") == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "partial (1 bad image left out)" in text
    assert "left out of tiny: image 3" in text


def test_out_of_memory_and_numbers_that_are_none(detector, tmp_path, capsys, monkeypatch):
    def exhausted(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    build = mmdetection.build_detector

    def with_step(step):
        def build_with(*args, **kwargs) -> MMDetector:
            built = build(*args, **kwargs)
            built.model.test_step = step(built.model.test_step)
            return built

        monkeypatch.setattr(mmdetection, "build_detector", build_with)

    with_step(lambda step: exhausted)
    text = failed(capsys, detector, tmp_path / "a")
    assert "Tried to allocate 2.00 GiB" in text
    assert "smaller --batch-size" in text

    def broken(step):
        def run(data):
            done = step(data)
            done[0].pred_instances.scores[0] = float("nan")
            return done

        return run

    with_step(broken)
    assert "expected boxes and scores that are numbers" in failed(capsys, detector, tmp_path / "b")


def test_a_full_disk_keeps_what_is_finished(finished, detector, tmp_path, capsys, monkeypatch):
    import errno

    from dtn_det.robustness import store

    write = store.write_bytes

    def full(path: Path, data: bytes) -> None:
        if path.name == "unit-000001.parquet":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(store, "write_bytes", full)
    text = failed(capsys, detector, tmp_path / "store")
    assert "All finished units are kept" in text
    assert list(units(tmp_path / "store")) == ["unit-000000.parquet"]
    monkeypatch.undo()
    assert mpc(detector, tmp_path / "store") == 0
    assert units(tmp_path / "store") == units(finished)


def test_wrong_configs_and_options(detector, tmp_path, capsys):
    store = tmp_path / "store"
    cases = {
        (
            "--cfg-options",
            "test_dataloader.dataset.pipeline.0.type=LoadNothing",
        ): "expected a test pipeline that builds",
        (
            "--cfg-options",
            "test_dataloader.dataset.pipeline.0.type=LoadMultiChannelImageFromFiles",
        ): "one LoadImageFromFile",
        ("--cfg-options", "test_dataloader.dataset.type=VOCDataset"): "expected a data set of COCO's format",
        ("--cfg-options", "model.type=NoDetector"): "expected a model in the config that builds",
        ("--cfg-options", "nonsense"): "expected KEY=VALUE",
        ("--split", "val"): "expected val_dataloader in the config",
        ("--amp",): "expected a GPU for --amp",
        ("--batch-size", "0"): "expected --batch-size to be at least 1",
        ("--workers", "-1"): "expected --workers to be at least 0",
        ("--corruptions", "frog"): "did you mean",
    }
    for more, message in cases.items():
        assert message in failed(capsys, detector, store, *more), more
    assert not store.exists()
    assert "there is no such file" in failed(capsys, ("no.py", detector[1]), store)
    assert "expected a checkpoint" in failed(capsys, (detector[0], "no.pth"), store)


def test_a_config_of_more_classes_than_the_data(detector, tmp_path, capsys):
    more = ("--cfg-options", "test_dataloader.dataset.metainfo.classes=('disc','square')")
    text = failed(capsys, detector, tmp_path / "store", *more)
    assert "expected heads of 2 classes" in text
    assert "got model.roi_head.bbox_head.num_classes=3, model.roi_head.mask_head.num_classes=3" in text
