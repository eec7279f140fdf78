_base_ = ["../_base_/listops/pico.py"]
