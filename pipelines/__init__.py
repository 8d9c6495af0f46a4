"""Whole jobs (index, evaluate, fine-tune, serve, demo) and the command line."""

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()  # before anything below imports torch
