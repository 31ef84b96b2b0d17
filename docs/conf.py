"""How Sphinx makes the site: `sphinx-build -W -c docs . site`.

The source folder is the whole repository. So a link between two pages means the same on the site, on GitHub and in an
editor. The lessons are read as notebooks and executed; `-D nb_execution_mode=off` leaves their results out.

Nothing is loaded from another host: formulas become SVG when the site is built.
"""

import os
import re
import shutil
import sys
import zlib
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from ziafont.config import config as shapes
from ziamath.zmath import Latex

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for autodoc and for docs.option_lists
os.environ["COLUMNS"] = "80"  # the width of the help of scripts

project = "moonwalk"
author = "the moonwalk authors"
project_copyright = author
language = "en"

# ---------------------------------------------------------------- pages

root_doc = "README"
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "lessons")
include_patterns = ["*.md", "docs/**.md", "lessons/README.md", "lessons/[0-9]_*.py"]
# The other folders, such as outputs/ and .venv, may hold thousands of files.
exclude_patterns = [path.name for path in ROOT.iterdir() if path.name not in PAGES]
exclude_patterns += ["lessons/solutions"]

# The navigation bar. A page among them whose tables list other pages is the head of a section with these pages.
BAR = (
    "Start <self>",
    "docs/tutorials",
    "docs/how-to",
    "docs/explanations",
    "docs/reference",
    "docs/board",
    "docs/records",
    "docs/glossary",
    "docs/tried",
    "docs/README",
    "CHANGELOG",
    "CONTRIBUTING",
)
HEADS = ("docs/tutorials", "docs/how-to", "docs/explanations", "docs/reference", "docs/api")
LISTED = re.compile(r"^\| \[([^\]]+)\]\(([^)]+)\.(?:md|py)\)", re.MULTILINE)  # "| [title](file.md) | ..."

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docs.docstrings",
    "docs.option_lists",
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

# ---------------------------------------------------------------- lessons


def checksum_of_modules() -> str:
    """A checksum of all modules that a lesson may use: results of other modules are not those of these."""
    total = 0
    for name in sorted(path.name for path in ROOT.iterdir()):
        files = [ROOT / name] if name.endswith(".py") else sorted((ROOT / name).glob("**/*.py"))
        is_ours = name not in ("tests", "docs") and not name.startswith(".")
        for file in files if is_ours else []:
            total = zlib.crc32(file.read_bytes(), total)
    return f"{total:08x}"


length = "quick" if os.environ.get("LESSON_QUICK") == "1" else "whole"
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "lessons" / f"{length}-{checksum_of_modules()}")
nb_execution_timeout = -1
nb_execution_raise_on_error = True
nb_merge_streams = True

# ---------------------------------------------------------------- docstrings

default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 60
add_module_names = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
toc_object_entries_show_parents = "hide"

# ---------------------------------------------------------------- look

html_theme = "pydata_sphinx_theme"
html_title = "moonwalk"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# These pages belong to no section, so that the list of its pages would be empty.
html_sidebars = {page: [] for page in (root_doc, *BAR[1:]) if page not in HEADS}
html_copy_source = False
highlight_language = "none"  # of blocks that name no language, such as tables
html_math_renderer = "svg"
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": [],
    "footer_end": [],
}


FORMULA_SIZE = 18  # pixels
shapes.svg2 = False  # every formula contains its own shapes


def drawn(latex: str, inline: bool) -> str:
    """A formula as SVG in the colour of the text. Browsers without a font of formulas misplace indices in MathML."""
    formula = Latex(latex, size=FORMULA_SIZE, color="currentColor", inline=inline)
    style = f"vertical-align: {formula.getyofst():.1f}px"
    return f'<span role="img" aria-label="{escape(latex)}">{formula.svg()}</span>'.replace(
        "<svg", f'<svg style="{style}"'
    )


def inline_formula(translator: Any, node: nodes.Node) -> None:
    translator.body.append(drawn(node.astext(), inline=True))
    raise nodes.SkipNode


def displayed_formula(translator: Any, node: nodes.Node) -> None:
    translator.body.append(f'<div class="formula">{drawn(node.astext(), inline=False)}</div>')
    raise nodes.SkipNode


# ---------------------------------------------------------------- what Sphinx calls


def add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the list of pages to the first page, and to the head of each section."""
    entries = BAR if docname == root_doc else ()
    if docname in HEADS:
        entries = tuple(f"{title} <{page}>" for title, page in LISTED.findall(source[0]))
    if entries:
        lines = "\n".join(entries)
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{lines}\n```\n"


def keep_lesson_files(app: Sphinx) -> None:
    """Let myst-nb keep its notebooks and pictures among Sphinx's own files, not in a folder beside the site."""
    settings = getattr(app.env, "mystnb_config")  # noqa: B009  (Sphinx does not declare it)
    setattr(app.env, "mystnb_config", settings.copy(output_folder=str(app.doctreedir / "lessons")))  # noqa: B010


def copy_gallery(app: Sphinx, error: Exception | None) -> None:
    """Copy the pages to play with, and let the site begin with its first page."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    shutil.copytree(ROOT / "docs" / "gallery", out / "docs" / "gallery", dirs_exist_ok=True)
    shutil.copy(ROOT / "docs" / "index.html", out / "docs" / "index.html")
    shutil.copy(out / f"{root_doc}.html", out / "index.html")


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("svg", (inline_formula, None), (displayed_formula, None))
    app.connect("builder-inited", keep_lesson_files, priority=900)  # after myst-nb has made its settings
    app.connect("source-read", add_navigation)
    app.connect("build-finished", copy_gallery)
