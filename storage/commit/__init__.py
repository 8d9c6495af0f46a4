"""Writing: the lease, commits, and the record of what was acknowledged."""
