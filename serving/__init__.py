"""One query from image bytes to ranked places."""

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()  # before anything below imports torch
