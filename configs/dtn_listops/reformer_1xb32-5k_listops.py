# The Arena's hashing: one round, 10 buckets, as many chunks, each of which sees itself and the one before.
_base_ = ["../_base_/listops/arena.py"]

model = dict(encoder=dict(type="reformer", chunk_length=200, num_buckets=10, num_hashes=1))
