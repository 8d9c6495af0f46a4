"""Models of others: any timm backbone, and networks that a small TOML file describes."""
