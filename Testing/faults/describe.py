"""Write ``Docs/reference/faults.md``, the list of everything in the fault table: python Testing/faults/describe.py"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fault_table import Row, tables

PAGE = Path(__file__).resolve().parents[2] / "Docs" / "reference" / "faults.md"
_HEAD = """\
# Faults and answers

What was tried, and what MedXlate answers. Made by `Testing/faults/describe.py` from `Testing/faults/table/`; each line
is a test that runs the real command. After an *error* no file is left and no input is changed; the number in brackets
is the exit status. A *warning* stands in the record of the result, which lies on the right grid. *Accepted* means a
result without a warning: odd but legal, or, where the line says so, a fault that is not noticed. *The same voxels* are
those of the sound call, bit for bit. The codes are explained in [errors.md](errors.md).
"""


def page() -> str:
    """Return the page's text."""
    groups = tables()
    rows = [row for group in groups for row in group.rows]
    counts = {kind: sum(row.answer == kind for row in rows) for kind in ("error", "warning", "ok")}
    lines = [
        _HEAD,
        f"{len(rows)} rows: {counts['error']} errors, {counts['warning']} warnings, {counts['ok']} accepted.",
    ]
    for group in groups:
        lines += ["", f"## {group.group}", "", group.about, "", "| what is wrong | command | answer |", "|---|---|---|"]
        lines += [f"| {_what(row)} | {row.command} | {_answer(row)} |" for row in group.rows]
    return "\n".join(lines) + "\n"


def _what(row: Row) -> str:
    text = f"{row.name} ({row.note})" if row.note else row.name
    return text.replace("|", "\\|")


def _answer(row: Row) -> str:
    if row.answer == "error":
        return f"{row.codes[0]} ({row.exit})"
    text = f"warning {', '.join(row.codes)}" if row.answer == "warning" else "accepted"
    return f"{text}, the same voxels" if row.same else text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
