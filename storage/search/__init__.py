"""Search for the nearest descriptors: exact and approximate in memory (FAISS), and on disk (LanceDB).

`snapshot` searches one version of a store, `index_partition` follows the newest one for a service.
"""
