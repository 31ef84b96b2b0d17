"""One HTML file that needs nothing beside it: it sends no request, and no text becomes a script."""

import base64
import json
from html import escape
from typing import Any

# Only what the file itself contains may load or run.
POLICY = (
    "default-src 'none'; img-src data: blob:; media-src data: blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline' blob:; worker-src blob:"
)


def page(
    title: str,
    body: str,
    *,
    style: str = "",
    script: str = "",
    data: Any = None,
    policy: str = POLICY,
) -> str:
    """Return an HTML document.

    Args:
        title: of the document; it is escaped here.
        body, style, script: our own text, inserted as it is. Text of others must pass
            `html.escape` first, or belongs into `data`.
        data: any value of JSON, which the script reads as `DATA`.
        policy: the content security policy; by default that of a page without other files.
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
    """Return JSON that may stand inside <script>: it cannot close it or begin a comment.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_uri(content: bytes, mime: str) -> str:
    """Return the address of a file's content inside the page: `data:image/png;base64,...`."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
