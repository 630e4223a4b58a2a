"""Finds cracks, defects, leaf disease, roads and speed lines in images, on JAX."""

__version__ = "0.1.0"
