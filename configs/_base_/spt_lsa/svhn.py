# SVHN, images of 32 x 32 pixels.
_base_ = ["./folders.py"]

data_root = "data/svhn/"
num_classes = 10
# Of the training images, in RGB.
data_preprocessor = dict(num_classes=num_classes, mean=[111.6, 113.2, 120.6], std=[50.5, 51.3, 50.2])

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

train_pipeline = _base_.train_pipeline
train_pipeline[3].policies = autoaugment
train_pipeline[-2].fill_color = data_preprocessor["mean"][::-1]
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root, pipeline=train_pipeline)))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = test_dataloader
