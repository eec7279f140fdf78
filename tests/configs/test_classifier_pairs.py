"""What the configs of classifiers say: twins differ in one thing alone, and the recipes are the published ones."""

from __future__ import annotations

from typing import Any

import pytest
from classifier_catalog import CONFIGS, DTN_CONFIGS, SL_CONFIGS, classifier, resolve
from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy

IMAGENET = [name for name in CONFIGS if name.endswith("in1k")]
SMALL = [name for name in CONFIGS if not name.endswith("in1k")]
MODELS = ("vit", "swin", "pit", "cait", "t2t")
SETS = {"cifar10": (10, 32), "cifar100": (100, 32), "svhn": (10, 32), "tiny-imagenet": (200, 64)}


def test_folders_hold_what_their_readmes_promise() -> None:
    plain = {f"{model}_1xb128_{data}" for model in MODELS for data in SETS}
    dtn = {f"dtn-{model}_1xb128_{data}" for model in ("vit", "swin") for data in SETS}
    assert {*SMALL} == plain | {f"sl-{name}" for name in plain} | dtn
    sizes = ("vit-tiny-p16", "vit-small-p16", "vit-base-p16", "swin-tiny", "pvt-tiny", "pvt-small")
    assert {*IMAGENET} == {f"{prefix}{size}_8xb128_in1k" for size in sizes for prefix in ("", "dtn-")}


@pytest.mark.parametrize("name", DTN_CONFIGS)
def test_pair_differs_in_the_norm_alone(name: str) -> None:
    dtn, layer_norm = resolve(name).to_dict(), resolve(name.removeprefix("dtn-")).to_dict()
    if dtn["model"]["type"] == "ConvertedModel":
        assert dtn["model"].pop("norm_cfg") == {"type": "dtn", "init": "local"}
        assert layer_norm["model"].pop("norm_cfg") == {"type": "LN"}
    else:
        stages = (0, 1, 2, 3) if "swin" in name else (0, 1, 2)
        backbone = dtn["model"]["backbone"]
        assert (backbone.pop("dtn_cfg"), backbone.pop("dtn_stages")) == ({"init": "local"}, stages)
        assert layer_norm["model"]["backbone"].pop("dtn_stages") == ()
    assert dtn == layer_norm


@pytest.mark.parametrize("name", SL_CONFIGS)
def test_sl_differs_in_tokens_and_attention_alone(name: str) -> None:
    ours, plain = resolve(name).to_dict(), resolve(name.removeprefix("sl-")).to_dict()
    assert (ours["model"].pop("spt"), ours["model"].pop("lsa")) == (True, True)
    assert (plain["model"].pop("spt"), plain["model"].pop("lsa")) == (False, False)
    assert ours == plain


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_recipe_is_deits(name: str) -> None:
    cfg = resolve(name)
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024
    optimizer = cfg.optim_wrapper.optimizer
    # 5e-4 for 512 images.
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-3, 0.05)
    assert cfg.optim_wrapper.type == "OptimWrapper"
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.T_max, cosine.end, cosine.eta_min) == (5, 5, 295, 300, 1e-5)
    assert [(augment.type, augment.alpha) for augment in cfg.data_preprocessor.batch_augments.augments] == [
        ("Mixup", 0.8),
        ("CutMix", 1.0),
    ]
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    rand_augment = steps["RandAugment"]
    assert (rand_augment.num_policies, rand_augment.magnitude_level, rand_augment.magnitude_std) == (2, 9, 0.5)
    assert (steps["RandomErasing"].erase_prob, steps["RandomErasing"].mode) == (0.25, "rand")
    assert cfg.train_dataloader.sampler == {"type": "RepeatAugSampler"}
    assert cfg.custom_hooks[0].momentum == pytest.approx(1 - 0.99996)
    drop_path = classifier(cfg).get("drop_path_rate", cfg.model.get("backbone", {}).get("drop_path_rate"))
    assert drop_path == 0.1
    loss = classifier(cfg).get("loss") or cfg.model.head.loss
    assert loss.label_smooth_val == 0.1
    assert {cfg[f"{part}_dataloader"].dataset.data_root for part in ("train", "val", "test")} == {cfg.data_root}


@pytest.mark.parametrize("name", SMALL)
def test_small_recipe_is_the_papers(name: str) -> None:
    cfg = resolve(name)
    classes, size = SETS[name.rpartition("_")[2]]
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 128
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-3, 0.05)
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.T_max, cosine.end) == (10, 10, 90, 100)
    # CutMix or Mixup for half of the batches.
    augments = cfg.data_preprocessor.batch_augments.augments
    assert [augment and (augment.type, augment.alpha) for augment in augments] == [
        ("CutMix", 1.0),
        ("Mixup", 1.0),
        None,
        None,
    ]
    assert cfg.train_dataloader.dataset.times == 3
    steps = {step.type: step for step in cfg.train_dataloader.dataset.dataset.pipeline}
    assert (steps["RandomCrop"].crop_size, steps["RandomCrop"].padding) == (size, 4)
    assert (steps["RandomErasing"].erase_prob, steps["RandomErasing"].max_area_ratio) == (0.25, 0.4)
    assert steps["RandomErasing"].fill_color == cfg.data_preprocessor.mean[::-1]
    model = classifier(cfg)
    head, backbone = model.get("head") or model, model.get("backbone") or model
    assert (head.num_classes, cfg.data_preprocessor.num_classes) == (classes, classes)
    assert head.loss.label_smooth_val == 0.1
    assert backbone.drop_path_rate == 0.1
    assert backbone.get("img_size", backbone.get("pretrain_img_size")) == size
    roots = {cfg.train_dataloader.dataset.dataset.data_root, cfg.val_dataloader.dataset.data_root}
    roots.add(cfg.test_dataloader.dataset.data_root)
    assert roots == {cfg.data_root} == {f"data/{name.rpartition('_')[2].replace('-', '_')}/"}


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("cifar10", AutoAugmentPolicy.CIFAR10),
        ("cifar100", AutoAugmentPolicy.CIFAR10),
        ("svhn", AutoAugmentPolicy.SVHN),
        ("tiny-imagenet", None),
    ],
)
def test_autoaugment_is_the_papers(name: str, policy: AutoAugmentPolicy | None) -> None:
    """As torchvision has it, whose thresholds of Solarize go to 255 where mmpretrain's go to 256."""
    pipeline = resolve(f"vit_1xb128_{name}").train_dataloader.dataset.dataset.pipeline
    (ours,) = [step.policies for step in pipeline if step.type == "AutoAugment"]
    if policy is None:
        assert ours == "imagenet"
        return
    theirs = AutoAugment(policy)
    magnitudes = theirs._augmentation_space(10, (331, 331))
    assert len(ours) == len(theirs.policies) == 25
    for sub, their_sub in zip(ours, theirs.policies, strict=True):
        for step, (operation, probability, level) in zip(sub, their_sub, strict=True):
            assert step.prob == probability
            kind = operation.rstrip("XY")
            assert step.type == ("ColorTransform" if kind == "Color" else kind)
            assert step.get("direction") == {"X": "horizontal", "Y": "vertical"}.get(operation[-1])
            if level is not None:
                expected = magnitudes[operation][0][level].item() / (331 if kind == "Translate" else 1)
                assert _strength(step) == pytest.approx(expected, abs=1.01 if kind == "Solarize" else 1e-6)


def _strength(step: Any) -> float:
    (value,) = [step[key] for key in ("magnitude", "angle", "bits", "thr") if key in step]
    return float(value)
