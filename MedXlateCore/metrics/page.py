"""The frame of every HTML page that MedXlate writes: self-contained, no scripts, readable on paper."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from MedXlateCore.metrics.pictures import png_data_uri

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["RESEARCH_USE_ONLY", "html_figure", "html_page", "html_table"]

RESEARCH_USE_ONLY = "research use only, not for diagnosis"
_STYLE = """
body{font:15px/1.45 system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;color:#1c1c1c;background:#fff;
margin:0 auto;max-width:1240px;padding:24px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:32px 0 8px;border-bottom:1px solid #ccc;padding-bottom:4px}
.label{display:inline-block;border:2px solid #8a1c00;color:#8a1c00;font-weight:600;padding:4px 10px;margin:8px 0}
table{border-collapse:collapse;margin:8px 0}th,td{border:1px solid #bbb;padding:4px 10px;text-align:right}
th{background:#f1f1f1}th:first-child,td:first-child{text-align:left}td.text{text-align:left}td.text:last-child{overflow-wrap:anywhere;font-size:12px}
figure{margin:12px 0;break-inside:avoid}figcaption{color:#444;font-size:13px}img{max-width:100%;height:auto}
svg{max-width:100%;height:auto}.plots{display:flex;flex-wrap:wrap;gap:24px}
.warning{border-left:4px solid #c77700;background:#fff6e5;padding:6px 12px;margin:6px 0}
pre{background:#f6f6f6;border:1px solid #ddd;padding:10px;font-size:12px;white-space:pre-wrap;overflow-wrap:anywhere}
footer{margin-top:32px;border-top:1px solid #ccc;padding-top:8px;color:#444;font-size:13px}
@media print{body{max-width:none;padding:0;font-size:11pt}.plots figure{flex:1 1 40%}
h2{break-after:avoid}table{break-inside:avoid}}
"""


def html_page(title: str, sections: Sequence[str]) -> str:
    """Return a whole page: title, the synthetic label, the sections (HTML), a footer. The title is escaped."""
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>"
        f'<p class="label">SYNTHETIC IMAGE · {RESEARCH_USE_ONLY}</p>'
        f"{''.join(sections)}"
        f"<footer>Made by MedXlate. Synthetic images: {RESEARCH_USE_ONLY}.</footer></body></html>\n"
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # file names need not be valid text


def html_figure(picture: Image.Image, alt: str, caption: str) -> str:
    """Return a picture with its caption, the picture inline. Texts are escaped."""
    return (
        f'<figure><img src="{png_data_uri(picture)}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: bool = False) -> str:
    """Return a table; cells are escaped. ``texts`` sets words to the left instead of figures to the right."""
    cell = '<td class="text">' if texts else "<td>"
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"{cell}{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
