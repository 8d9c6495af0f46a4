"""The LanceDB table of records and descriptors: schema, checksums, validation, salvage of damaged files."""
