"""Drives: frames and odometry in, a position per frame out, as JSON, GPX and GeoJSON."""
