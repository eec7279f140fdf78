"""Sets whose images are rows of a file: NumPy arrays, CIFAR's own batches, Parquet files."""
