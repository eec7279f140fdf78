# CIFAR-10, images of 32 x 32 pixels.
_base_ = ["./folders.py"]

data_root = "data/cifar10/"
num_classes = 10
# Of the training images, in RGB.
data_preprocessor = dict(num_classes=num_classes, mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7])

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

train_pipeline = _base_.train_pipeline
train_pipeline[3].policies = autoaugment
train_pipeline[-2].fill_color = data_preprocessor["mean"][::-1]
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root, pipeline=train_pipeline)))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = test_dataloader
