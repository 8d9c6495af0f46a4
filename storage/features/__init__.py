"""Local features: Parquet shards, encodings, reading single rows."""
