"""How a network runs: device and precision, compilation, threads, memory, transfers."""
