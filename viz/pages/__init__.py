"""Pages of one HTML file each: a sweep, a gallery of runs, and a network that runs in the browser."""
