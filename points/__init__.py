"""Point sets with their exact distributions, and files of points."""
