"""Planning an index run: how long, how much, at what price, from a short trial."""
