_base_ = ["./cait_1xb128_svhn.py"]

model = dict(spt=True, lsa=True)
