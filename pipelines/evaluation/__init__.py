"""Evaluating a data set: ground truth, Recall@K, the report."""
