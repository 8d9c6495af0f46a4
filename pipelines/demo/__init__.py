"""The demo: a procedural city with exact poses, and the whole main job on it."""
