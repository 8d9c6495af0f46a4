"""What is true on disk: records and descriptors in LanceDB, local features in Parquet."""
