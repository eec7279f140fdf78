_base_ = ["../_base_/listops/pico.py"]

model = dict(encoder=dict(type="reformer", chunk_length=16, num_buckets=4, num_hashes=1))
