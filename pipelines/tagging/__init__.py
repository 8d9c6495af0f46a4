"""Tags of stored images: given while indexing, changed afterwards."""
