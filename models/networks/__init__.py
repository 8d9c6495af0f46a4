"""The networks: SelaVPR (DINOv2 with adapters) and EfficientNet-Lite0, with their descriptions."""
