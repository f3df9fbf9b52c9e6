"""Checks of the application on a machine with an NVIDIA GPU: `python -m benchmarks.gpu`."""
