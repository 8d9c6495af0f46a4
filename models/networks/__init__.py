"""The networks: DINOv2 with SelaVPR's adapters, and EfficientNet-Lite0."""
