"""Where the bytes of a photo lie: a file, an object of a bucket, or a part of a container of many photos."""
