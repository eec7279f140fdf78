_base_ = ["./swin_1xb128_svhn.py"]

model = dict(spt=True, lsa=True)
