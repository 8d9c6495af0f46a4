"""One query from image bytes to ranked places."""
