"""Objects under one location: a folder of this machine, or a prefix of a bucket (S3, Google Cloud, Azure)."""
