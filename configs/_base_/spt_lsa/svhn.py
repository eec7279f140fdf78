# SVHN: 32 x 32 pixels in folders of classes, which tools/prepare_small_data.py makes of the original files.
_base_ = ["./recipe.py"]

data_root = "data/svhn/"
num_classes = 10
data_preprocessor = dict(
    num_classes=num_classes,
    # Of the training images, in RGB.
    mean=[111.6, 113.2, 120.6],
    std=[50.5, 51.3, 50.2],
    to_rgb=True,
    # Every other batch is mixed, by CutMix or by Mixup; of the four, one is drawn for each batch.
    batch_augments=dict(augments=[dict(type="CutMix", alpha=1.0), dict(type="Mixup", alpha=1.0), None, None]),
)

# AutoAugment's policy for SVHN: levels of 0 to 9 over the ranges of the paper (arXiv:1805.09501).
autoaugment = [
    [dict(type="Shear", prob=0.9, magnitude=0.3 / 9 * 4, direction="horizontal"), dict(type="Invert", prob=0.2)],
    [dict(type="Shear", prob=0.9, magnitude=0.3 / 9 * 8, direction="vertical"), dict(type="Invert", prob=0.7)],
    [dict(type="Equalize", prob=0.6), dict(type="Solarize", prob=0.6, thr=256 / 9 * 3)],
    [dict(type="Invert", prob=0.9), dict(type="Equalize", prob=0.6)],
    [dict(type="Equalize", prob=0.6), dict(type="Rotate", prob=0.9, angle=30 / 9 * 3)],
    [dict(type="Shear", prob=0.9, magnitude=0.3 / 9 * 4, direction="horizontal"), dict(type="AutoContrast", prob=0.8)],
    [dict(type="Shear", prob=0.9, magnitude=0.3 / 9 * 8, direction="vertical"), dict(type="Invert", prob=0.4)],
    [
        dict(type="Shear", prob=0.9, magnitude=0.3 / 9 * 5, direction="vertical"),
        dict(type="Solarize", prob=0.2, thr=256 / 9 * 3),
    ],
    [dict(type="Invert", prob=0.9), dict(type="AutoContrast", prob=0.8)],
    [dict(type="Equalize", prob=0.6), dict(type="Rotate", prob=0.9, angle=30 / 9 * 3)],
    [
        dict(type="Shear", prob=0.9, magnitude=0.3 / 9 * 4, direction="horizontal"),
        dict(type="Solarize", prob=0.3, thr=256 / 9 * 6),
    ],
    [dict(type="Shear", prob=0.8, magnitude=0.3 / 9 * 8, direction="vertical"), dict(type="Invert", prob=0.7)],
    [
        dict(type="Equalize", prob=0.9),
        dict(type="Translate", prob=0.6, magnitude=150 / 331 / 9 * 6, direction="vertical"),
    ],
    [dict(type="Invert", prob=0.9), dict(type="Equalize", prob=0.6)],
    [dict(type="Contrast", prob=0.3, magnitude=0.1 * 3), dict(type="Rotate", prob=0.8, angle=30 / 9 * 4)],
    [
        dict(type="Invert", prob=0.8),
        dict(type="Translate", prob=0.0, magnitude=150 / 331 / 9 * 2, direction="vertical"),
    ],
    [
        dict(type="Shear", prob=0.7, magnitude=0.3 / 9 * 6, direction="vertical"),
        dict(type="Solarize", prob=0.4, thr=256 / 9 * 1),
    ],
    [dict(type="Invert", prob=0.6), dict(type="Rotate", prob=0.8, angle=30 / 9 * 4)],
    [
        dict(type="Shear", prob=0.3, magnitude=0.3 / 9 * 7, direction="vertical"),
        dict(type="Translate", prob=0.9, magnitude=150 / 331 / 9 * 3, direction="horizontal"),
    ],
    [dict(type="Shear", prob=0.1, magnitude=0.3 / 9 * 6, direction="horizontal"), dict(type="Invert", prob=0.6)],
    [
        dict(type="Solarize", prob=0.7, thr=256 / 9 * 7),
        dict(type="Translate", prob=0.6, magnitude=150 / 331 / 9 * 7, direction="vertical"),
    ],
    [dict(type="Shear", prob=0.8, magnitude=0.3 / 9 * 4, direction="vertical"), dict(type="Invert", prob=0.8)],
    [
        dict(type="Shear", prob=0.7, magnitude=0.3 / 9 * 9, direction="horizontal"),
        dict(type="Translate", prob=0.8, magnitude=150 / 331 / 9 * 3, direction="vertical"),
    ],
    [dict(type="Shear", prob=0.8, magnitude=0.3 / 9 * 5, direction="vertical"), dict(type="AutoContrast", prob=0.7)],
    [dict(type="Shear", prob=0.7, magnitude=0.3 / 9 * 2, direction="horizontal"), dict(type="Invert", prob=0.1)],
]

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="RandomCrop", crop_size=32, padding=4),
    dict(type="AutoAugment", policies=autoaugment, hparams=dict(pad_val=128)),
    dict(
        type="RandomErasing",
        erase_prob=0.25,
        mode="const",
        min_area_ratio=0.02,
        max_area_ratio=0.4,
        aspect_range=(3 / 10, 10 / 3),
        fill_color=data_preprocessor["mean"][::-1],
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
        dataset=dict(type="CustomDataset", data_root=data_root, data_prefix="train", pipeline=train_pipeline),
    ),
)
test_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CustomDataset", data_root=data_root, data_prefix="test", pipeline=test_pipeline),
)
val_dataloader = test_dataloader
