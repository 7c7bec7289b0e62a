"""The table of codes and the code agree."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"MX-[A-Z]{3}-\d{3}")
PACKAGES = ("MedXlateCore", "MedXlateSlicer")
RAISING = {"InputError", "UsageError", "ResourceError", "Warned", "Check", "Cancelled"}


def codes_in_source() -> dict[str, set[str]]:
    """Return every code that stands as a string of its own in the packages, with the files that use it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                found[node.value].add(path.name)
    return found


def documented() -> list[str]:
    text = (ROOT / "Docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    return re.findall(r"^\| (MX-[A-Z]{3}-\d{3}) \|", text, flags=re.MULTILINE)


def test_every_code_of_the_package_is_in_the_table_of_errors():
    assert set(codes_in_source()) - set(documented()) == set()


def test_the_table_of_errors_names_no_code_that_does_not_exist():
    assert set(documented()) - set(codes_in_source()) == set()


def test_the_table_of_errors_names_each_code_once():
    assert len(documented()) == len(set(documented()))
