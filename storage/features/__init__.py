"""Local features: Parquet shards, encodings, reading of single rows, the cache."""
