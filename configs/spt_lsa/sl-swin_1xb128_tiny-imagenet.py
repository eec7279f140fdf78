_base_ = ["./swin_1xb128_tiny-imagenet.py"]

model = dict(spt=True, lsa=True)
