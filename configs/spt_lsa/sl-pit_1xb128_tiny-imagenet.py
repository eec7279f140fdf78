_base_ = ["./pit_1xb128_tiny-imagenet.py"]

model = dict(spt=True, lsa=True)
