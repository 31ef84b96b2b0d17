"""Point sets: where their points come from, with their exact distributions."""

from typing import Any, NamedTuple

from registry.own_options import OwnOption


class PointsRow(NamedTuple):
    """A point set.

    code: a function of the options, as "module:name", which returns the parts of the exact distribution, of equal mass.
    is_exact: where False, the function draws points instead, and no exact distribution is known.
    own_options: those of a set that was added by a user; the others have a dataclass in conf/groups.py.
    """

    code: Any
    help: str
    is_exact: bool = True
    own_options: tuple[OwnOption, ...] = ()


POINT_SETS = {
    "moons": PointsRow("points.curves:moons", "two interleaved half circles"),
    "circles": PointsRow("points.curves:circles", "one circle inside another"),
    "gaussians": PointsRow("points.curves:gaussians", "Gaussians of equal weight on a circle of radius 1"),
    "grid": PointsRow("points.curves:grid", "Gaussians of equal weight on a square grid from -1 to 1"),
    "checkerboard": PointsRow("points.curves:checkerboard", "the black squares of a board of 4 x 4 squares"),
    "swiss_roll": PointsRow("points.curves:swiss_roll", "a rolled-up line"),
    "swiss_roll_3d": PointsRow("points.curves:swiss_roll_3d", "a rolled-up sheet in three dimensions"),
    "s_curve": PointsRow("points.curves:s_curve", "a sheet in the shape of an S, in three dimensions"),
    "spirals": PointsRow("points.curves:spirals", "arms that wind outwards"),
    "pinwheel": PointsRow("points.curves:pinwheel", "bent blades around a centre"),
    "helix": PointsRow("points.curves:helix", "a helix in three dimensions"),
    "text": PointsRow("points.drawings:text", "the letters of a text"),
    "picture": PointsRow("points.drawings:picture", "the dark pixels of a picture, weighted by their darkness"),
}
# Sets that are read from files, by their names.
SETS_OF_FILES = ("file", "digits", "mnist", "emoji", "images")
