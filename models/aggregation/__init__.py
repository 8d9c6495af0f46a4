"""Aggregation of local features to one descriptor, learned from photos of the city. NumPy alone, no torch."""

from models.aggregation.aggregation import DESCRIPTOR_DIM, Aggregation
from models.aggregation.rejected import AggregationRejected
from models.aggregation.sample import Sample, sample_key

__all__ = ["DESCRIPTOR_DIM", "Aggregation", "AggregationRejected", "Sample", "sample_key"]
