"""Point sets: the exact distribution (mixture.py), by name (curves.py, drawings.py), and files of points (files.py)."""
