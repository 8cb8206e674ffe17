"""HTML pages of one file each, and the policy by which browsers load nothing beside them. What they show is others'."""

from __future__ import annotations

import base64
import hashlib
from html import escape


def whole_page(title: str, body: str, style: str, *, script: str = "", media: str = "") -> str:
    """A page around a piece of HTML. Pictures are data URIs. script: the one that may run, known by its hash.

    media: where sound and video may come from, in the words of a Content-Security-Policy; from nowhere by default.
    """
    policy = ["default-src 'none'", "img-src data:", *([f"media-src {media}"] if media else ())]
    policy.append("style-src 'unsafe-inline'")
    if script:
        known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy.append(f"script-src 'sha256-{known}'")
        body += f"\n<script>{script}</script>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{"; ".join(policy)}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
