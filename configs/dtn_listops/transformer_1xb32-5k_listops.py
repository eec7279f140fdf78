_base_ = ["../_base_/listops/arena.py"]
