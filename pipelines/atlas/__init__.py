"""The atlas of a store: where photos are missing, which are redundant, and which places look alike."""
