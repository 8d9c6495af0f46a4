"""Positions written beside the pixels of photos: into the EXIF segment of a JPEG, or as an XMP sidecar."""
