"""Image decoding, the SelaVPR and EfficientNet models, local feature matching, and weights files."""

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()  # before anything below imports torch
