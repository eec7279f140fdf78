_base_ = ["./swin_1xb128_cifar10.py"]

model = dict(spt=True, lsa=True)
