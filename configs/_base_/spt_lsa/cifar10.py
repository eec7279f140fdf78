# CIFAR-10: 32 x 32 pixels in folders of classes, which tools/prepare_small_data.py makes of the original archive.
_base_ = ["./recipe.py"]

data_root = "data/cifar10/"
num_classes = 10
data_preprocessor = dict(
    num_classes=num_classes,
    # Of the training images, in RGB.
    mean=[125.3, 123.0, 113.9],
    std=[63.0, 62.1, 66.7],
    to_rgb=True,
    # Every other batch is mixed, by CutMix or by Mixup; of the four, one is drawn for each batch.
    batch_augments=dict(augments=[dict(type="CutMix", alpha=1.0), dict(type="Mixup", alpha=1.0), None, None]),
)

# AutoAugment's policy for CIFAR-10: levels of 0 to 9 over the ranges of the paper (arXiv:1805.09501).
autoaugment = [
    [dict(type="Invert", prob=0.1), dict(type="Contrast", prob=0.2, magnitude=0.1 * 6)],
    [
        dict(type="Rotate", prob=0.7, angle=30 / 9 * 2),
        dict(type="Translate", prob=0.3, magnitude=150 / 331 / 9 * 9, direction="horizontal"),
    ],
    [dict(type="Sharpness", prob=0.8, magnitude=0.1 * 1), dict(type="Sharpness", prob=0.9, magnitude=0.1 * 3)],
    [
        dict(type="Shear", prob=0.5, magnitude=0.3 / 9 * 8, direction="vertical"),
        dict(type="Translate", prob=0.7, magnitude=150 / 331 / 9 * 9, direction="vertical"),
    ],
    [dict(type="AutoContrast", prob=0.5), dict(type="Equalize", prob=0.9)],
    [
        dict(type="Shear", prob=0.2, magnitude=0.3 / 9 * 7, direction="vertical"),
        dict(type="Posterize", prob=0.3, bits=5),
    ],
    [dict(type="ColorTransform", prob=0.4, magnitude=0.1 * 3), dict(type="Brightness", prob=0.6, magnitude=0.1 * 7)],
    [dict(type="Sharpness", prob=0.3, magnitude=0.1 * 9), dict(type="Brightness", prob=0.7, magnitude=0.1 * 9)],
    [dict(type="Equalize", prob=0.6), dict(type="Equalize", prob=0.5)],
    [dict(type="Contrast", prob=0.6, magnitude=0.1 * 7), dict(type="Sharpness", prob=0.6, magnitude=0.1 * 5)],
    [
        dict(type="ColorTransform", prob=0.7, magnitude=0.1 * 7),
        dict(type="Translate", prob=0.5, magnitude=150 / 331 / 9 * 8, direction="horizontal"),
    ],
    [dict(type="Equalize", prob=0.3), dict(type="AutoContrast", prob=0.4)],
    [
        dict(type="Translate", prob=0.4, magnitude=150 / 331 / 9 * 3, direction="vertical"),
        dict(type="Sharpness", prob=0.2, magnitude=0.1 * 6),
    ],
    [dict(type="Brightness", prob=0.9, magnitude=0.1 * 6), dict(type="ColorTransform", prob=0.2, magnitude=0.1 * 8)],
    [dict(type="Solarize", prob=0.5, thr=256 / 9 * 7), dict(type="Invert", prob=0.0)],
    [dict(type="Equalize", prob=0.2), dict(type="AutoContrast", prob=0.6)],
    [dict(type="Equalize", prob=0.2), dict(type="Equalize", prob=0.6)],
    [dict(type="ColorTransform", prob=0.9, magnitude=0.1 * 9), dict(type="Equalize", prob=0.6)],
    [dict(type="AutoContrast", prob=0.8), dict(type="Solarize", prob=0.2, thr=256 / 9 * 1)],
    [dict(type="Brightness", prob=0.1, magnitude=0.1 * 3), dict(type="ColorTransform", prob=0.7, magnitude=0.1 * 0)],
    [dict(type="Solarize", prob=0.4, thr=256 / 9 * 4), dict(type="AutoContrast", prob=0.9)],
    [
        dict(type="Translate", prob=0.9, magnitude=150 / 331 / 9 * 9, direction="vertical"),
        dict(type="Translate", prob=0.7, magnitude=150 / 331 / 9 * 9, direction="vertical"),
    ],
    [dict(type="AutoContrast", prob=0.9), dict(type="Solarize", prob=0.8, thr=256 / 9 * 6)],
    [dict(type="Equalize", prob=0.8), dict(type="Invert", prob=0.1)],
    [
        dict(type="Translate", prob=0.7, magnitude=150 / 331 / 9 * 9, direction="vertical"),
        dict(type="AutoContrast", prob=0.9),
    ],
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
