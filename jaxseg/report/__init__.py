"""Files that a finished evaluation leaves for people: tables, curves, overlays."""
