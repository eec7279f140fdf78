# Tiny-ImageNet, images of 64 x 64 pixels.
_base_ = ["./folders.py"]

data_root = "data/tiny_imagenet/"
num_classes = 200
# Of the training images, in RGB.
data_preprocessor = dict(num_classes=num_classes, mean=[122.5, 114.3, 101.4], std=[70.6, 68.6, 71.9])

train_pipeline = _base_.train_pipeline
train_pipeline[2].crop_size = 64
train_pipeline[-2].fill_color = data_preprocessor["mean"][::-1]
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root, pipeline=train_pipeline)))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = test_dataloader
