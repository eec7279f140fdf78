_base_ = ["./t2t_1xb128_tiny-imagenet.py"]

model = dict(spt=True, lsa=True)
