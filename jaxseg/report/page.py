"""A self-contained HTML page: text, tables and pictures in one file, without network.

Every text is escaped here, so names of files and classes can hold anything.
"""

import base64
import hashlib
import html
import io
import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from jaxseg.report.results import format_value

STYLE = """
:root { color-scheme: light dark; --ink: #22262b; --quiet: #6e7680; --paper: #fff;
  --line: #dfe3e8; --warn: #9a4a00; --warn-back: #fff4e5; --bad: #a3171d;
  --bad-back: #fdecec; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --quiet: #9aa4af;
  --paper: #16191d; --line: #343a41; --warn: #ffb866; --warn-back: #33260f;
  --bad: #ff9a9a; --bad-back: #3a1719; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); max-width: 76rem; margin: 0 auto;
  padding: 1rem 1.25rem 3rem; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
p.quiet { color: var(--quiet); margin: 0.25rem 0; overflow-wrap: anywhere; }
div.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.8rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--quiet); font-weight: 600; }
ul { padding-left: 1.2rem; } li { margin: 0.35rem 0; overflow-wrap: anywhere; }
.box { border-left: 4px solid; padding: 0.6rem 1rem; margin: 0.6rem 0;
  overflow-wrap: anywhere; }
.warning { border-color: var(--warn); background: var(--warn-back); }
.problem { border-color: var(--bad); background: var(--bad-back); }
code { font: 0.92em ui-monospace, monospace; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; border: 1px solid var(--line); }
@media print { body { max-width: none; } h2 { break-after: avoid; } }
"""


def page(title: str, body: Sequence[str], *, style: str = "", script: str = "") -> str:
    """The whole document; `body` is of the functions below.

    It may load nothing, and run no script but the given one, whatever stands in it.

    Args:
      style: more CSS.
      script: JavaScript without `</script>`; it runs when all else is there.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}{style}</style></head>\n<body>\n"
        + "\n".join([f"<h1>{html.escape(title)}</h1>", *body])
        + (f"\n<script>{script}</script>" if script else "")
        + "\n</body></html>\n"
    )


def heading(text: str, key: str = "") -> str:
    """A heading of a section; links reach it as '#key'."""
    place = f' id="{key}"' if key else ""
    return f"<h2{place}>{html.escape(text[:1].upper() + text[1:])}</h2>"


def paragraph(text: str) -> str:
    return f'<p class="quiet">{html.escape(text)}</p>'


def box(text: str, kind: str) -> str:
    """A sentence that stands out; kind is 'warning' or 'problem'."""
    lines = "<br>".join(_with_options(line) for line in text.splitlines())
    return f'<div class="box {kind}" role="note">{lines}</div>'


def bullets(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{_with_options(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The first column to the left, the others to the right."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    lines = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(_text(cell))}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def picture(image: Image.Image, description: str) -> str:
    """The picture inside of the page, as JPEG."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=88)
    return jpeg_picture(file.getvalue(), description)


def jpeg_picture(file: bytes, description: str) -> str:
    """A JPEG file inside of the page."""
    data = base64.b64encode(file).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(description)}">'


def _with_options(text: str) -> str:
    """Escaped; options of the command line as code, ready to copy."""
    parts = re.split(r"(--config\.[^\s,;]+)", text)
    return "".join(
        f"<code>{html.escape(part)}</code>" if number % 2 else html.escape(part)
        for number, part in enumerate(parts)
    )


def _text(cell: Any) -> str:
    return "" if cell is None else format_value(cell)
