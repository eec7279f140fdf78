_base_ = ["./vit-tiny-p16_8xb128_in1k.py"]

model = dict(model=dict(model_name="vit_small_patch16_224"))
