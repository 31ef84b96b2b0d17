"""The options of pictures: in which formats, and on which ground."""

from dataclasses import dataclass

from conf.option import option

FIGURES = ("png", "pdf", "svg")
STYLES = ("light", "dark")


@dataclass
class Pictures:
    """pictures"""

    figures: list[str] = option(
        ["png"],
        "formats of every figure, such as png,pdf; clouds of points in pdf and svg are pixels of 300 dpi",
        choices=FIGURES,
        may_change=True,
    )
    style: str = option("light", "ground of figures and films", choices=STYLES, may_change=True)
