"""Exporting: the descriptors of a store as arrays, and a model as ONNX."""
