"""Pixels to numbers: decoding, the SelaVPR model, matching and weights."""
