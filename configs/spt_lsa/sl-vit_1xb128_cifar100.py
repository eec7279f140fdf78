_base_ = ["./vit_1xb128_cifar100.py"]

model = dict(spt=True, lsa=True)
