"""The store: records and descriptors in LanceDB, local features in Parquet.

`store` is the entry point, `store_reader` its half that only reads; `card`, `records`, `position` and
`errors` define what they take and return.
"""
