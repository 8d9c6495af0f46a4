"""Weights: files of this project, models by name, and import of published checkpoints."""
