"""Execution of networks: device and precision, compilation, threads, memory and transfers."""
