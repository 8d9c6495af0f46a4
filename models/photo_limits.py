"""Limits on the pixels of a photo, for flags and settings. Imports nothing, for the command line's help."""

__all__ = ["MAX_MEGAPIXELS", "MEGAPIXELS_BOUND", "MEGAPIXELS_HELP", "SERVICE_MEGAPIXELS_BOUND", "pixels_of"]

MAX_MEGAPIXELS = 40.0  # by default
# Measured at 48 and 108 megapixels, decoding takes 7 bytes per pixel of JPEG, PNG and HEIC, 9 of AVIF, 15 of
# WebP. These are 7 to 15 GB per process, and 2 to 4 GB for what strangers send.
MEGAPIXELS_BOUND = 1_000.0
SERVICE_MEGAPIXELS_BOUND = 250.0
MEGAPIXELS_HELP = "largest photo in megapixels; decoding takes 7 to 15 MB of memory for each"


def pixels_of(megapixels: float) -> int:
    """Return a number of megapixels in pixels."""
    return int(megapixels * 1_000_000)
