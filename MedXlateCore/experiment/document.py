"""A report as plain data, written as Markdown or as a self-contained HTML page from the same words and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from MedXlateCore.metrics.page import RESEARCH_USE_ONLY, html_figure, html_page, html_table

__all__ = ["Document", "Heading", "Items", "Paragraph", "Part", "Picture", "Table", "as_html", "as_markdown"]


@dataclass(frozen=True)
class Heading:
    """A section's title; level 2 or 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Words."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list; ``warning`` for faults and remarks."""

    items: tuple[str, ...]
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text; ``texts`` where cells are words rather than figures."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with its caption; in Markdown the file of that name, beside the report."""

    image: Image.Image
    caption: str
    file: str


Part = Heading | Paragraph | Items | Table | Picture


@dataclass(frozen=True)
class Document:
    """A title and its parts."""

    title: str
    parts: tuple[Part, ...]


def as_markdown(document: Document) -> str:
    """Return the document as Markdown."""
    blocks = [f"# {document.title}", f"**{RESEARCH_USE_ONLY}**"]
    blocks += [_markdown(part) for part in document.parts]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _markdown(part: Part) -> str:
    if isinstance(part, Heading):
        return f"{'#' * part.level} {part.text}"
    if isinstance(part, Paragraph):
        return part.text
    if isinstance(part, Items):
        return "\n".join(f"- {_one_line(item)}" for item in part.items)
    if isinstance(part, Picture):
        return f"![{part.caption}]({part.file})"
    lines = [_markdown_row(part.head), _markdown_row(["---"] * len(part.head))]
    return "\n".join([*lines, *(_markdown_row(row) for row in part.rows)])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in cells) + " |"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def as_html(document: Document) -> str:
    """Return the document as one HTML page with its pictures inside."""
    return html_page(document.title, [_html(part) for part in document.parts])


def _html(part: Part) -> str:
    if isinstance(part, Heading):
        return f"<h{part.level}>{escape(part.text)}</h{part.level}>"
    if isinstance(part, Paragraph):
        return f"<p>{escape(part.text)}</p>"
    if isinstance(part, Items):
        if part.warning:
            return "".join(f'<div class="warning">{escape(item)}</div>' for item in part.items)
        return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in part.items) + "</ul>"
    if isinstance(part, Picture):
        return html_figure(part.image, part.caption, part.caption)
    return html_table(part.head, part.rows, texts=part.texts)
