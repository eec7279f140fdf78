# CIFAR-100, as CIFAR-10.
_base_ = ["./cifar10.py"]

data_root = "data/cifar100/"
num_classes = 100
# Of the training images, in RGB.
mean = [129.3, 124.1, 112.4]
data_preprocessor = dict(num_classes=num_classes, mean=mean, std=[68.2, 65.4, 70.4])
train_pipeline = _base_.train_pipeline
train_pipeline[-2].fill_color = mean[::-1]
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root, pipeline=train_pipeline)))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = test_dataloader
