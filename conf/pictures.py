"""Options of pictures: their file formats and their background."""

from dataclasses import dataclass

from conf.option import option

FIGURES = ("png", "pdf", "svg")
STYLES = ("light", "dark")


@dataclass
class Pictures:
    """pictures"""

    figures: list[str] = option(
        ["png"],
        "file formats of every figure, such as png,pdf; in pdf and svg, point clouds are pixels of 300 dpi",
        choices=FIGURES,
    )
    style: str = option("light", "background of figures and films", choices=STYLES)
