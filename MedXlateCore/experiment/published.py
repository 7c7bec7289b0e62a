"""Published figures, as their papers print them: shown beside ours, never compared with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from MedXlateCore.config import nearest, parse_toml, read_dataclass
from MedXlateCore.errors import UsageError

__all__ = ["HEADING", "PublishedRow", "PublishedTable", "list_published", "published_table"]

HEADING = "published, other data, other protocol"
_FILE = "published.toml"


@dataclass(frozen=True)
class PublishedRow:
    """One line of a published table.

    Attributes:
        method: as the paper calls it.
        label: the task as the paper prints it.
        direction: the same as a direction of MedXlate, such as ``T1->T2``; empty where there is none.
        values: figures by the table's columns, as printed.
    """

    method: str
    label: str
    values: tuple[str, ...]
    direction: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """A published table: where it stands, what its columns are, what should be known about it."""

    source: str
    columns: tuple[str, ...]
    note: str
    row: tuple[PublishedRow, ...]

    def for_direction(self, direction: str) -> tuple[PublishedRow, ...]:
        """Return the rows of one direction."""
        return tuple(row for row in self.row if row.direction == direction)


def published_table(name: str) -> PublishedTable:
    """Return a table by its name.

    Raises:
        UsageError: ``MX-EXP-008``, there is no such table.
    """
    known = _tables()
    if name not in known:
        guess = nearest(name, known)
        raise UsageError(
            "MX-EXP-008",
            f"there are no published figures called '{name}'",
            expected=f"one of {', '.join(known)}",
            where="[experiment] published",
            fix=f"did you mean '{guess}'?" if guess else "choose one of these, or remove the key",
        )
    return known[name]


def list_published() -> list[str]:
    """Return the names of all tables."""
    return list(_tables())


@cache
def _tables() -> dict[str, PublishedTable]:
    file = resources.files("MedXlateCore") / "resources" / "experiments" / _FILE
    mapping = parse_toml(file.read_bytes(), _FILE)
    return {name: read_dataclass(PublishedTable, table, f"{_FILE} [{name}]") for name, table in mapping.items()}
