"""Data sets whose images are rows of a file: NumPy arrays, the original CIFAR batches, Parquet files."""
