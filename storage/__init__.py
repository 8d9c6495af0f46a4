"""The store: records and descriptors in LanceDB, local features in Parquet.

`store` is the entry point; `card`, `records`, `position` and `errors` define what it takes and returns.
"""
