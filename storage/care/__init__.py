"""Maintenance of a store: verification, repair and compaction."""
