"""The demo: a procedural city with exact poses, and the steps from indexing to evaluation on it."""
