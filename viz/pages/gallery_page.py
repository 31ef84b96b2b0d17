"""One page for several runs: the pictures, films and verdicts of each, and a link to its page."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

from viz.pages.explorable.verdicts import VERDICT_STYLE, verdict_table
from viz.pages.html import page

# Pictures and films are files beside the page. Nothing else is loaded.
POLICY = (
    "default-src 'none'; img-src 'self' file:; media-src 'self' file:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
STYLE = """:root { color-scheme: light dark;
  --paper: #fff; --ink: #1a1f2b; --faint: #5b6475; --edge: #d5d9e0; --accent: #0b63c4; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1016; --ink: #eef1f6; --faint: #a3acbb; --edge: #303846; --accent: #6fb1ff; }
}
body { margin: 0 auto; max-width: 980px; padding: 1rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 16px/1.45 system-ui, sans-serif; }
section { border-top: 1px solid var(--edge); margin-top: 2rem; }
h2 { margin: 1.2rem 0 0.3rem; }
h3 { margin: 1rem 0 0.2rem; font-size: 1rem; }
img, video { max-width: 100%; border-radius: 0.4rem; }
a { color: var(--accent); }
a.play { display: inline-block; padding: 0.4rem 1rem; margin: 0.4rem 0; border-radius: 0.4rem; text-decoration: none;
  color: var(--paper); background: var(--accent); }
code, td, th { font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.2rem 1rem 0.2rem 0; border-bottom: 1px solid var(--edge); }
summary { cursor: pointer; }
.faint { color: var(--faint); }
"""


class Entry(NamedTuple):
    """A run in the gallery.

    Attributes:
        title: of its section.
        about: a sentence about it.
        pictures: relative paths of its pictures and films.
        page: the relative path of its page to play with.
        figures: "figures" of its metrics.json, {} where there are none.
        dark: pictures on a dark ground, by the path of the one that they replace in a dark theme.
    """

    title: str
    about: str
    pictures: Sequence[Path]
    page: Path
    figures: Mapping[str, Any]
    dark: Mapping[Path, Path] = MappingProxyType({})


def gallery(entries: Sequence[Entry]) -> str:
    """Return the HTML page of all entries.

    Raises:
        ValueError: see verdict_table.
    """
    sections = [_section(entry) for entry in entries]
    body = f"""<h1>moonwalk: a gallery</h1>
<p>Small diffusion models, each with its samples beside real data, with what an evaluation says of them, and with a page
in which the network itself runs: no installation, no connection.</p>
{"".join(sections)}"""
    return page("moonwalk: a gallery", body, style=STYLE + VERDICT_STYLE, policy=POLICY)


def _section(entry: Entry) -> str:
    """Return the section of a run."""
    pictures = [_picture(path, entry.title, entry.dark.get(path)) for path in entry.pictures]
    return f"""<section>
<h2>{escape(entry.title)}</h2>
<p class="faint">{escape(entry.about)}</p>
{"".join(pictures)}
<p><a class="play" href="{_address(entry.page)}">Play with it</a></p>
<details><summary>How good is it?</summary>
{verdict_table(entry.figures)}
</details>
</section>
"""


def _picture(path: Path, title: str, dark: Path | None) -> str:
    """Return the element of a picture, or of a film if the file is an mp4.

    Args:
        path: of the picture.
        title: of its run.
        dark: the picture for a dark theme, if there is one.
    """
    description = escape(f"{path.stem} of {title}", quote=True)
    address = _address(path)
    if path.suffix == ".mp4":
        options = f'controls loop muted aria-label="{description}"'
        return f'<p><video src="{address}" {options}></video></p>'
    image = f'<img src="{address}" alt="{description}" loading="lazy">'
    if dark is None:
        return f"<p>{image}</p>"
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{_address(dark)}">'
    return f"<p><picture>{source}{image}</picture></p>"


def _address(path: Path) -> str:
    """Return a path as it may stand in an attribute."""
    return escape(quote(path.as_posix()), quote=True)
