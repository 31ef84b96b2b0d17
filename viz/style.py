"""The background of figures and films, light or dark, and the colours that follow from it."""

from matplotlib import rcdefaults, rcParams, style

STYLES = {"light": "default", "dark": "dark_background"}
NIGHT = "#0d1016"  # a soft black, which is also the background of recordings
NIGHT_GRID = "#5a6170"  # fainter than the curves, as on a light background


def use(name: str) -> None:
    """Draw every later figure in one style.

    Args:
        name: a key of STYLES.
    """
    rcdefaults()
    style.use(STYLES[name])
    if name == "dark":
        rcParams["figure.facecolor"] = NIGHT
        rcParams["axes.facecolor"] = NIGHT
        rcParams["savefig.facecolor"] = NIGHT
        rcParams["grid.color"] = NIGHT_GRID
    rcParams["svg.fonttype"] = "none"  # text remains text, which can be searched and edited
    rcParams["pdf.fonttype"] = 42  # the same for PDF


def ink() -> str:
    """Return the colour of text and axes: black on a light background, white on a dark one."""
    return str(rcParams["text.color"])


def paper() -> str:
    """Return the colour of the background."""
    return str(rcParams["figure.facecolor"])


def greys() -> str:
    """Return the name of a colour map from the colour of the background to its opposite."""
    return "Greys" if ink() == "black" else "Greys_r"
