"""Stages of a query as batched workers, in one process (`local`) or in Ray Serve deployments (`remote`)."""
