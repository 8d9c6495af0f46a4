"""The store: records and descriptors in LanceDB, local features in Parquet.

`store` is the entry point; `card`, `records`, `position` and `errors` are the types that it takes and returns.
"""
