# What the small data sets have in common: images in folders of classes, which tools/prepare_small_data.py makes of the
# original archives, and how they are augmented.
_base_ = ["./recipe.py"]

data_preprocessor = dict(
    to_rgb=True,
    # Every other batch is mixed, by CutMix or by Mixup; of the four, one is drawn for each batch.
    batch_augments=dict(augments=[dict(type="CutMix", alpha=1.0), dict(type="Mixup", alpha=1.0), None, None]),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="RandomCrop", crop_size=32, padding=4),
    dict(type="AutoAugment", policies="imagenet", hparams=dict(pad_val=128)),
    dict(
        type="RandomErasing",
        erase_prob=0.25,
        mode="const",
        min_area_ratio=0.02,
        max_area_ratio=0.4,
        aspect_range=(3 / 10, 10 / 3),
    ),
    dict(type="PackInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]

# What the authors call repeated augmentation: an epoch goes over the images three times, each time augmented anew.
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="RepeatDataset",
        times=3,
        dataset=dict(type="CustomDataset", data_prefix="train", pipeline=train_pipeline),
    ),
)
test_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CustomDataset", data_prefix="test", pipeline=test_pipeline),
)
val_dataloader = test_dataloader
