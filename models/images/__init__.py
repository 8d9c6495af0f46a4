"""From encoded photos to the pixels that a network reads."""
