"""Writing to a store: the lease, the writer, and the acknowledged version with its digests."""
