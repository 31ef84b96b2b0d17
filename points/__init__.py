"""Point sets: exact distributions by name (curves.py, drawings.py) and files of points (files.py)."""
