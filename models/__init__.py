"""Pixels to numbers: decoding, the SelaVPR model, matching and weights."""

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()  # before anything below imports torch
