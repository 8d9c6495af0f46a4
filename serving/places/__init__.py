"""Places instead of pictures: a position with a radius, how likely it is right, and what calibrates that."""
