"""Drives instead of single photos: a hidden Markov model over the places of a store."""
