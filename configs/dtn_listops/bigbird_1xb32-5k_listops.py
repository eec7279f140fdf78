_base_ = ["../_base_/listops/arena.py"]

model = dict(encoder=dict(type="bigbird", block_size=64, num_random_blocks=3))
