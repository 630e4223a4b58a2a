"""A trained network in use: single images from Python, whole folders from a script."""
