_base_ = ["../_base_/listops/pico.py"]

model = dict(encoder=dict(type="bigbird", block_size=8, num_random_blocks=1))
