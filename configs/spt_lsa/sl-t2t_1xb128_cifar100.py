_base_ = ["./t2t_1xb128_cifar100.py"]

model = dict(spt=True, lsa=True)
