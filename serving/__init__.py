"""Queries from a photo to ranked places: the engine, the service on Ray Serve, and its client."""

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()  # before anything below imports torch
