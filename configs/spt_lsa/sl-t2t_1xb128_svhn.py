_base_ = ["./t2t_1xb128_svhn.py"]

model = dict(spt=True, lsa=True)
