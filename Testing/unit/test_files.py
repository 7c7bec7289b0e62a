"""Files are complete or absent, whatever the name, the disk or the moment of death."""

from __future__ import annotations

import enum
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from MedXlateCore import files
from MedXlateCore.errors import InputError, MedXlateError, ResourceError, UsageError
from MedXlateCore.files import (
    atomic_write,
    atomic_write_bytes,
    atomic_write_text,
    atomic_write_together,
    check_writable,
    json_text,
    read_bytes,
    read_json,
    refuse_same_file,
    remove_stale_temporaries,
    sha256_file,
    to_jsonable,
    write_json,
)

ROOT = Path(__file__).resolve().parents[2]
posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX permissions and signals")

ODD_NAMES = [
    "plain.json",
    "with space.json",
    " leading space.json",
    "it's.json",
    'double"quote.json',
    "back\\slash.json",
    "semi;colon.json",
    "percent%20.json",
    "hash#.json",
    "question?.json",
    "star*.json",
    "pipe|.json",
    "$HOME.json",
    "-dash.json",
    "--option=1.json",
    "~tilde.json",
    "two\nlines.json",
    "tab\t.json",
    "emoji🧠.json",
    "Grüße-é.json",
    "שלום-مرحبا.json",
    "\u202egnp.json",
    "日本語.json",
    "n" * 240 + ".json",
    "语" * 83 + ".json",
    "no_suffix",
    "long." + "s" * 200,
    ".hidden",
    "a..b.json",
]


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=120)


def only(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- atomic writing ---


@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")
@pytest.mark.parametrize("name", ODD_NAMES, ids=[ascii(n)[:30] for n in ODD_NAMES])
def test_any_name_the_file_system_allows_can_be_written_and_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    check_writable(path)
    assert only(tmp_path) == []
    write_json(path, {"name": name})
    assert read_json(path) == {"name": name}
    assert only(tmp_path) == [name]


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    atomic_write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert only(tmp_path) == ["out.txt"]


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "out.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert only(tmp_path) == []


def test_the_old_file_stands_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    atomic_write_text(path, "old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_the_temporary_name_is_hidden_keeps_the_suffix_and_names_the_process(tmp_path: Path) -> None:
    for name, suffix in (("a.nii.gz", ".nii.gz"), ("b.NII.GZ", ".nii.gz"), ("c.mha", ".mha"), ("d", "")):
        with atomic_write(tmp_path / name) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.name.startswith(".mxtmp-") and str(os.getpid()) in temporary.name
            assert temporary.name.endswith(suffix)
            temporary.touch()


@pytest.mark.parametrize(
    ("suffix", "kept"), [("." + "s" * 15, True), ("." + "s" * 16, False), (".語語語語語語", False)]
)
def test_only_a_short_suffix_is_kept(tmp_path: Path, suffix: str, kept: bool) -> None:
    with atomic_write(tmp_path / f"a{suffix}") as temporary:
        assert temporary.name.endswith(suffix) == kept
        temporary.touch()


def test_two_temporaries_of_one_target_differ(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "a") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a").read_text() == "1"


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught, atomic_write(tmp_path / "a"):
        pass
    assert caught.value.code == "MX-FIL-016"


def test_missing_folders_are_made_only_when_writing(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "out.txt"
    check_writable(path)
    assert only(tmp_path) == []
    atomic_write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_text_has_unix_line_ends_everywhere(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a", "1\n2\n")
    assert (tmp_path / "a").read_bytes() == b"1\n2\n"


@posix_only
def test_an_existing_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    path.chmod(0o640)
    atomic_write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@posix_only
def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a", "")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@posix_only
def test_a_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "store" / "real.txt")
    atomic_write_text(link, "through")  # dangling so far
    assert link.is_symlink()
    assert (tmp_path / "store" / "real.txt").read_text() == "through"
    assert only(tmp_path / "store") == ["real.txt"]


def test_the_file_is_flushed_before_it_is_renamed_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (steps.append("replace"), replace(a, b)))
    atomic_write_text(tmp_path / "a", "x")
    assert steps == (["fsync", "replace", "fsync"] if os.name != "nt" else ["fsync", "replace"])


def test_files_that_belong_together_appear_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (steps.append(b.name), replace(a, b)))
    with atomic_write_together(tmp_path / "record", tmp_path / "sub" / "image") as (record, image):
        record.write_text("r")
        image.write_text("i")
    assert steps == ["fsync", "fsync", "record", "image", "fsync", "fsync"] or os.name == "nt"
    assert (tmp_path / "record").read_text() == "r" and (tmp_path / "sub" / "image").read_text() == "i"


def test_when_one_of_them_fails_none_appears(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "record", "old")
    with pytest.raises(ResourceError), atomic_write_together(tmp_path / "record", tmp_path / "image") as (record, _):
        record.write_text("new")  # and no image
    assert (tmp_path / "record").read_text() == "old" and only(tmp_path) == ["record"]
    (tmp_path / "image").mkdir()
    with pytest.raises(ResourceError), atomic_write_together(tmp_path / "record", tmp_path / "image"):
        pass
    assert only(tmp_path) == ["image", "record"]


# --- checks before writing ---


def code_of(call, *args: object) -> str:
    with pytest.raises(MedXlateError) as caught:
        call(*args)
    assert caught.value.fix and caught.value.where
    assert "\n" not in caught.value.where
    return caught.value.code


def test_a_folder_as_output_is_refused(tmp_path: Path) -> None:
    assert code_of(check_writable, tmp_path) == "MX-FIL-010"


@posix_only
def test_a_pipe_as_output_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert code_of(check_writable, tmp_path / "pipe") == "MX-FIL-010"


def test_a_file_in_the_middle_of_the_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert code_of(check_writable, tmp_path / "file" / "out.nii.gz") == "MX-FIL-011"
    assert code_of(atomic_write_text, tmp_path / "file" / "more" / "out.nii.gz", "") == "MX-FIL-011"


@posix_only
def test_a_name_beyond_255_bytes_is_refused(tmp_path: Path) -> None:
    assert code_of(check_writable, tmp_path / ("n" * 256)) == "MX-FIL-011"
    assert code_of(atomic_write_text, tmp_path / ("n" * 256), "") == "MX-FIL-011"
    assert only(tmp_path) == []


@pytest.mark.parametrize("name", ["nul\0.txt", ""])
def test_a_name_no_file_can_have_is_refused(name: str) -> None:
    assert code_of(check_writable, f"/tmp/{name}" if name else name) == "MX-FIL-007"


@posix_only
def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    path.chmod(0o444)
    assert code_of(check_writable, path) == "MX-FIL-012"
    assert code_of(atomic_write_text, path, "new") == "MX-FIL-012"
    assert path.read_text() == "old"


def codes_without_privileges(calls: list[Callable[[], object]]) -> list[str]:
    """Run calls in a forked child that is not root (for whom permissions do not count) and return their codes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        for call in calls:
            try:
                call()
                os.write(writer, b"fine ")
            except MedXlateError as error:
                os.write(writer, error.code.encode() + b" ")
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        return stream.read().split()


@posix_only
def test_permissions_that_are_lacking_are_found() -> None:
    folder = Path(tempfile.mkdtemp())  # not tmp_path: its parents are closed to others
    try:
        closed = folder / "closed"
        closed.mkdir()
        secret = closed / "secret"
        secret.write_text("{}")
        secret.chmod(0)
        folder.chmod(0o755)
        closed.chmod(0o555)
        calls = [
            lambda: check_writable(closed / "out.txt"),
            lambda: check_writable(closed / "new" / "out.txt"),
            lambda: atomic_write_text(closed / "out.txt", ""),
            lambda: files.path_lock(closed / "out.txt").__enter__(),
            lambda: read_json(secret),
            lambda: sha256_file(secret),
        ]
        assert codes_without_privileges(calls) == ["MX-FIL-012"] * 4 + ["MX-FIL-005"] * 2
        closed.chmod(0o000)
        assert codes_without_privileges([lambda: read_bytes(secret), lambda: check_writable(secret)]) == [
            "MX-FIL-005",
            "MX-FIL-012",
        ]
        closed.chmod(0o755)
        assert only(closed) == ["secret"]
    finally:
        shutil.rmtree(folder)


@posix_only
def test_a_read_only_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(self: Path, mode: int = 0o666, exist_ok: bool = True) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "touch", touch)
    assert code_of(check_writable, tmp_path / "a") == "MX-FIL-012"


def test_too_little_space_is_found_before_computing(tmp_path: Path) -> None:
    assert code_of(check_writable, tmp_path / "a", 2**60) == "MX-FIL-013"


def test_the_space_needed_includes_a_mebibyte_to_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [3 * 2**20]
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, free[0]))
    check_writable(tmp_path / "a", 2 * 2**20)
    free[0] -= 1
    with pytest.raises(ResourceError) as caught:
        check_writable(tmp_path / "a", 2 * 2**20)
    assert caught.value.found == "the disk has 3 MiB free" and caught.value.expected == "at least 3 MiB"


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.nii.gz"
    source.touch()
    for other in (source, tmp_path / "x" / ".." / "in.nii.gz", str(source)):
        assert code_of(refuse_same_file, other, [tmp_path / "first", source]) == "MX-FIL-014"
    with pytest.raises(UsageError):
        refuse_same_file(source, [source])


@posix_only
@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_links_do_not_hide_that_output_and_input_are_one(tmp_path: Path, link: str) -> None:
    source = tmp_path / "in.nii.gz"
    source.touch()
    getattr(tmp_path / "alias.nii.gz", link)(source)
    assert code_of(refuse_same_file, tmp_path / "alias.nii.gz", [source]) == "MX-FIL-014"
    assert code_of(refuse_same_file, source, [tmp_path / "alias.nii.gz"]) == "MX-FIL-014"


def test_an_output_of_its_own_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    (tmp_path / "out").touch()
    refuse_same_file(tmp_path / "out", [tmp_path / "in", tmp_path / "missing"])
    refuse_same_file(tmp_path / "new", [tmp_path / "in"])


# --- full disks and sudden death ---


@posix_only
@pytest.mark.parametrize("limit", [1, 100, 4095, 4096, 4097, 50_000, 65_536, 99_000, 99_998, 99_999])
def test_a_disk_that_fills_up_leaves_the_old_file_and_a_clear_code(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    script = """
        import resource, sys
        from MedXlateCore.errors import MedXlateError
        from MedXlateCore.files import atomic_write_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
        try:
            atomic_write_bytes(sys.argv[1], bytes(100_000))
        except MedXlateError as error:
            print(error.code, error.exit_code)
    """
    done = python(script, str(path), str(limit))
    assert done.stdout.split() == ["MX-FIL-013", "4"], done.stderr
    assert path.read_bytes() == b"old"
    assert only(tmp_path) == ["out.bin"]


KILLED = """
    import os, signal, sys
    from MedXlateCore import files
    from MedXlateCore.files import atomic_write_bytes, path_lock
    from pathlib import Path
    target, moment = sys.argv[1], sys.argv[2]
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    if moment == "before fsync":
        files.os.fsync = lambda fd: die()
    if moment == "before replace":
        Path.replace = lambda a, b: die()
    if moment == "after replace":
        real = Path.replace
        Path.replace = lambda a, b: (real(a, b), die())
    with path_lock(target):
        if moment == "while writing":
            with files.atomic_write(target) as temporary:
                temporary.write_bytes(b"ha")
                die()
        atomic_write_bytes(target, b"new")
"""


@posix_only
@pytest.mark.parametrize("moment", ["while writing", "before fsync", "before replace", "after replace"])
def test_a_killed_run_leaves_a_whole_file_and_the_next_start_cleans_up(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    done = python(KILLED, str(path), moment)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == (b"new" if moment == "after replace" else b"old")
    with files.path_lock(path):  # the dead process's lock is free
        pass
    python(KILLED, str(path), moment)
    removed = remove_stale_temporaries(tmp_path)
    assert len(removed) >= 1
    assert only(tmp_path) == ["out.bin"]


def test_temporaries_of_living_processes_and_other_computers_stay_for_a_day(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "mine") as mine:
        mine.touch()
        dead = python("import os; print(os.getpid())").stdout.strip()
        elsewhere = tmp_path / f".mxtmp-{dead}-00000000-12345678"
        here = tmp_path / mine.name.replace(str(os.getpid()), dead, 1)
        foreign = tmp_path / ".tmp-something"
        for path in (elsewhere, here, foreign):
            path.touch()
        assert remove_stale_temporaries(tmp_path) == [here]
        for hours, removed in ((23.9, []), (24.1, [elsewhere])):
            then = time.time() - hours * 3600
            os.utime(elsewhere, (then, then))
            assert remove_stale_temporaries(tmp_path) == removed
        assert mine.exists() and foreign.exists()


@posix_only
def test_a_process_of_another_user_counts_as_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(pid: int, number: int) -> None:
        raise PermissionError

    with atomic_write(tmp_path / "a") as name:
        name.touch()
        other = tmp_path / name.name.replace(str(os.getpid()), "1", 1)
        other.touch()
        monkeypatch.setattr(files.os, "kill", forbid)
        assert remove_stale_temporaries(tmp_path) == []


def test_a_temporary_that_vanishes_meanwhile_is_no_error(tmp_path: Path) -> None:
    assert not files._is_stale(tmp_path / "gone", 1, files._HOST)


def test_a_process_number_beyond_any_is_dead(tmp_path: Path) -> None:
    path = tmp_path / f".mxtmp-{10**30}-{files._HOST}-12345678"
    path.touch()
    assert remove_stale_temporaries(tmp_path) == [path]


def test_a_file_where_a_folder_belongs_is_found_by_the_probe(tmp_path: Path) -> None:
    """Windows does not say so earlier."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        files._probe(tmp_path / "file", tmp_path / "file" / "x")


def test_cleaning_a_folder_that_does_not_exist_is_no_error(tmp_path: Path) -> None:
    assert remove_stale_temporaries(tmp_path / "missing") == []


# --- reading ---


@pytest.mark.parametrize("read", [read_bytes, read_json, sha256_file])
def test_files_that_cannot_be_read_have_codes(tmp_path: Path, read) -> None:
    (tmp_path / "empty").touch()
    assert code_of(read, tmp_path / "missing") == "MX-FIL-001"
    assert code_of(read, tmp_path) == "MX-FIL-002"
    assert code_of(read, tmp_path / "empty") == "MX-FIL-003"
    assert code_of(read, tmp_path / "empty" / "inside") == "MX-FIL-001"
    assert code_of(read, tmp_path / ("n" * 300)) == "MX-FIL-006"
    assert code_of(read, "") == "MX-FIL-007"
    assert code_of(read, "a\0b") == "MX-FIL-007"


@posix_only
def test_reading_a_pipe_does_not_wait_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert code_of(read_bytes, tmp_path / "pipe") == "MX-FIL-002"


@posix_only
def test_a_file_without_read_permission_has_a_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a"
    path.write_text("{}")
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for read in (read_bytes, sha256_file):
        with pytest.raises(ResourceError) as caught:
            read(path)
        assert caught.value.code == "MX-FIL-005"
    monkeypatch.setattr(Path, "stat", refuse)
    assert code_of(read_bytes, path) == "MX-FIL-005"


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    assert code_of(read_bytes, tmp_path / "a", 4) == "MX-FIL-008"
    assert code_of(read_json, tmp_path / "a", 4) == "MX-FIL-008"


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    "text",
    [b"{", b"\xff\xfe{}", b"[NaN]", b"[Infinity]", b"[-Infinity]", b"{} {}", b"[" * 100_000, b"1" * 10_000, b" "],
)
def test_what_is_not_json_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / "a.json")
    assert caught.value.code == "MX-FIL-020"


def test_json_keeps_order_and_turns_what_json_lacks_into_plain_values(tmp_path: Path) -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    @dataclass
    class Point:
        x: float
        where: Path

    obj = {
        "b": np.float32(0.5),
        "a": [float("nan"), np.float64("inf"), True, None, 3],
        Colour.RED: Colour.RED,
        "array": np.arange(3, dtype=np.int16),
        "point": Point(1.0, Path("x")),
        "set": {2, 1},
        "odd": "lone\udcff",
        "ü": (1, 2),
    }
    write_json(tmp_path / "a.json", obj)
    back = read_json(tmp_path / "a.json")
    assert list(back) == ["b", "a", "red", "array", "point", "set", "odd", "ü"]
    assert back["a"] == [None, None, True, None, 3]
    assert back["red"] == "red" and back["array"] == [0, 1, 2] and back["b"] == 0.5
    assert back["point"] == {"x": 1.0, "where": "x"} and back["set"] == [1, 2] and back["ü"] == [1, 2]
    assert back["odd"] == "lone\\udcff"
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == json_text(obj)
    assert json_text({"ü": [1]}) == '{\n  "ü": [\n    1\n  ]\n}\n'
    assert json.loads(json_text(obj)) == back


def test_a_value_without_a_place_in_json_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        to_jsonable({"a": object()})
    assert caught.value.code == "MX-USE-012"
