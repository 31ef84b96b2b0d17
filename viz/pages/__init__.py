"""Pages of one HTML file each: about a sweep, a gallery of runs, and one that runs a network in the browser."""
