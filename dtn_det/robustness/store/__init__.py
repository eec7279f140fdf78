"""Results on disk: Parquet files that are complete or absent, and the manifests that keep runs apart."""
