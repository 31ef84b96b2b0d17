"""One page for several runs: of each its picture, its film, its verdicts, and the way to its page to play with."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from viz.pages.explorable.verdicts import verdict_table
from viz.pages.html import page

# Pictures and films stand in files beside the page; nothing else is loaded.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "img-src 'self' file:",
        "media-src 'self' file:",
        "style-src 'unsafe-inline'",
        "script-src 'unsafe-inline'",
    ]
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
    """A run in the gallery: its title, a sentence about it, its pictures and films and its page, as relative paths."""

    title: str
    about: str
    pictures: Sequence[Path]
    page: Path
    figures: Mapping[str, Any]


def gallery(entries: Sequence[Entry]) -> str:
    """The page of them all."""
    body = f"""<h1>moonwalk: a gallery</h1>
<p>Small diffusion models, each with its samples beside real data, with what an evaluation says of them, and with a page
in which the network itself runs: no installation, no connection.</p>
{"".join(_section(entry) for entry in entries)}"""
    return page("moonwalk: a gallery", body, style=STYLE, policy=POLICY)


def _section(entry: Entry) -> str:
    return f"""<section>
<h2>{escape(entry.title)}</h2>
<p class="faint">{escape(entry.about)}</p>
{"".join(_picture(path, entry.title) for path in entry.pictures)}
<p><a class="play" href="{_address(entry.page)}">Play with it</a></p>
<details><summary>How good is it?</summary>
{verdict_table(entry.figures)}
</details>
</section>
"""


def _picture(path: Path, title: str) -> str:
    what = escape(f"{path.stem} of {title}", quote=True)
    if path.suffix == ".mp4":
        return f'<p><video src="{_address(path)}" controls loop muted aria-label="{what}"></video></p>'
    return f'<p><img src="{_address(path)}" alt="{what}" loading="lazy"></p>'


def _address(path: Path) -> str:
    return escape(quote(path.as_posix()), quote=True)
