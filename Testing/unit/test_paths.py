"""Paths in messages stay on one line and say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedXlateCore.errors import InputError
from MedXlateCore.paths import existing_ancestor, real_path, refuse_bad_name, require_file, shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a b'🧠é.nii", "a b'🧠é.nii"),
        ("two\nlines", "two\\nlines"),
        ("\u202egnp", "\\u202egnp"),
        ("lone\udcff", "lone\\udcff"),
        ("bell\x07", "bell\\x07"),
    ],
)
def test_hidden_characters_are_escaped_and_visible_ones_are_not(name: str, text: str) -> None:
    assert shown(name) == text
    shown(name).encode("utf-8")


def test_the_nearest_existing_folder_is_found(tmp_path: Path) -> None:
    assert existing_ancestor(tmp_path) == tmp_path
    assert existing_ancestor(tmp_path / "a" / "b") == tmp_path


def test_a_loop_of_links_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    real_path(tmp_path / "a")
    with pytest.raises(InputError) as caught:
        require_file(tmp_path / "a")
    assert caught.value.code == "MX-FIL-006"


def test_the_root_and_dot_are_names() -> None:
    refuse_bad_name("/")
    refuse_bad_name(".")
    with pytest.raises(InputError):
        refuse_bad_name("")


def test_the_size_of_a_good_file_is_returned(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    assert require_file(tmp_path / "a") == 3
