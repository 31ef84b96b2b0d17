"""One HTML file that needs nothing beside it: no request leaves it, and no text in it can become a script."""

import base64
import json
from html import escape
from typing import Any

# Only what stands inside the file may load or run.
POLICY = (
    "default-src 'none'; img-src data: blob:; media-src data: blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline' blob:; worker-src blob:"
)


def page(title: str, body: str, *, style: str = "", script: str = "", data: Any = None, policy: str = POLICY) -> str:
    """An HTML document. `body`, `style` and `script` are ours and stand as they are: texts of other people's go
    through `html.escape` first, or into `data`, which the script reads as `DATA`. policy: another than that of a page
    which needs nothing beside it.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
<script>
"use strict";
const DATA = {script_json(data)};
{script}</script>
</body>
</html>
"""


def script_json(value: Any) -> str:
    """JSON that may stand inside <script>: nothing in it can close the element or begin a comment of HTML."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_uri(content: bytes, mime: str) -> str:
    """The address of a file's content inside the page itself, such as `data:image/png;base64,...`."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
