"""The ground that figures and films are drawn on, light or dark, and the colours that follow from it."""

from matplotlib import rcdefaults, rcParams, style

STYLES = {"light": "default", "dark": "dark_background"}
NIGHT = "#0d1016"  # softer than black, and the ground of recordings


def use(name: str) -> None:
    """Draw everything from now on in the style of that name, a key of STYLES."""
    rcdefaults()
    style.use(STYLES[name])
    if name == "dark":
        rcParams["figure.facecolor"] = rcParams["axes.facecolor"] = rcParams["savefig.facecolor"] = NIGHT
    rcParams["svg.fonttype"] = "none"  # letters stay letters, which can be searched and edited
    rcParams["pdf.fonttype"] = 42  # likewise


def ink() -> str:
    """The colour of text and axes: black on a light ground, white on a dark one."""
    return str(rcParams["text.color"])


def paper() -> str:
    """The colour of the ground."""
    return str(rcParams["figure.facecolor"])


def greys() -> str:
    """A colour map from that of the ground to its opposite."""
    return "Greys" if ink() == "black" else "Greys_r"
