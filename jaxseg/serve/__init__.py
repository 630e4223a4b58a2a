"""A trained network behind HTTP: a page for people, JSON for programs.

Loopback by default. Bodies are bytes of one image, bounded in bytes, pixels and time;
nothing of a request is ever used as a path, and nothing is written.
"""
