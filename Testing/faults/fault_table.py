"""The fault table: rows are data in ``table/*.toml``; ``test_fault_table.py`` runs them, ``describe.py`` lists them.

A row says in ``name`` what is wrong, in ``make`` how the inputs become so (makers of ``makers*.py`` with their
arguments, in order), and one answer: ``error`` (a code, with the exit status in ``exit``, 3 by default), ``warning``
(the codes in the record of the result, no more and no fewer) or ``ok`` (a result without any warning).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parent / "table"
ORDER = ("geometry", "values", "shape", "meaning", "files", "names", "dicom", "regions", "models", "devices",
         "training", "evaluation", "commands")  # fmt: skip
NEEDS = {"posix", "permissions"}
_TABLE_KEYS = {"group", "about", "command", "row"}
_ROW_KEYS = {"name", "make", "command", "options", "error", "exit", "warning", "ok", "note", "needs", "keeps", "same"}


@dataclass(frozen=True)
class Row:
    """One fault and its answer.

    Attributes:
        name: what is wrong, as a sentence's subject.
        group: name of its table.
        make: maker's name -> its arguments.
        command: the subcommand of ``medxlate`` it goes through.
        options: further words of the command line; ``{folder}`` stands for the row's folder.
        answer: ``error``, ``warning`` or ``ok``.
        codes: the error's code, or the codes of the recorded warnings.
        exit: exit status.
        note: remark for readers.
        needs: what the computer must offer: ``posix``, ``permissions`` (that count for the user).
        keeps: folder that may stay behind after an error (prepared cases).
        same: sound call whose result this one has, bit for bit: ``plain`` or ``region``.
    """

    name: str
    group: str
    make: dict[str, dict[str, Any]]
    command: str
    options: tuple[str, ...]
    answer: str
    codes: tuple[str, ...]
    exit: int
    note: str
    needs: tuple[str, ...]
    keeps: str
    same: str


@dataclass(frozen=True)
class Table:
    """A group of rows."""

    group: str
    about: str
    rows: tuple[Row, ...]


@cache
def tables() -> tuple[Table, ...]:
    """Return all groups in order; anything unclear in the files is an error here."""
    found = {path.stem for path in TABLES.glob("*.toml")}
    if found != set(ORDER):
        raise ValueError(f"tables and ORDER differ: {sorted(found ^ set(ORDER))}")
    return tuple(_table(name) for name in ORDER)


def rows() -> list[Row]:
    """Return the rows of all groups."""
    return [row for table in tables() for row in table.rows]


def _table(name: str) -> Table:
    data = tomllib.loads((TABLES / f"{name}.toml").read_text(encoding="utf-8"))
    if unknown := set(data) - _TABLE_KEYS:
        raise ValueError(f"{name}: unknown keys {sorted(unknown)}")
    return Table(data["group"], data["about"], tuple(_row(entry, data) for entry in data["row"]))


def _row(entry: dict[str, Any], table: dict[str, Any]) -> Row:
    answers = [key for key in ("error", "warning", "ok") if key in entry]
    if len(answers) != 1 or set(entry) - _ROW_KEYS or set(entry.get("needs", ())) - NEEDS:
        raise ValueError(f"the row {entry.get('name')} is not clear: answers {answers}, keys {sorted(entry)}")
    codes = entry.get("error", entry.get("warning", []))
    return Row(
        name=entry["name"],
        group=table["group"],
        make=entry.get("make", {}),
        command=entry.get("command", table["command"]),
        options=tuple(entry.get("options", ())),
        answer=answers[0],
        codes=tuple(codes if isinstance(codes, list) else [codes]),
        exit=entry.get("exit", 3 if answers == ["error"] else 0),
        note=entry.get("note", ""),
        needs=tuple(entry.get("needs", ())),
        keeps=entry.get("keeps", ""),
        same=entry.get("same", ""),
    )
