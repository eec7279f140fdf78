_base_ = "./mask-rcnn_pvt-t_fpn_1x_coco.py"

model = dict(backbone=dict(spt=True, lsa=True))
