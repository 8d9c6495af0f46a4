"""The stages of a query as batched workers, in one process or in Ray Serve deployments."""
