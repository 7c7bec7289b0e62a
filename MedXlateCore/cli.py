"""The ``medxlate`` command: one subcommand a file in ``commands/``, one way to end.

Exit codes: 0 done, 2 usage, 3 bad input, 4 resources (memory, disk, device, permission), 70 a defect of MedXlate, 130
cancelled.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from MedXlateCore import __version__
from MedXlateCore.errors import Cancelled, InternalError, MedXlateError, ResourceError, UsageError

__all__ = ["main"]

# name -> (module in commands/, one line of help); modules import heavy libraries only when they run
COMMANDS = {
    "translate": ("translate", "make a missing sequence from the volumes you have"),
    "evaluate": ("evaluate", "compare a synthetic volume with its reference"),
    "check": ("check", "list what a DICOM folder holds, or look a volume over"),
    "demo": ("demo", "see it work on a phantom patient, with a report"),
    "batch": ("batch", "translate a table or a BIDS folder of cases"),
    "phantom": ("phantom", "make phantom heads with lesions, in all modalities"),
    "train": ("train", "train a model on a table of cases"),
    "experiment": ("experiment", "train and test several methods on one split, with one report"),
    "models": ("models", "list, show and verify model packages"),
    "describe": ("describe", "say in words how an image was acquired, from its sidecar"),
    "prompts": ("prompts", "show which prompt components a model takes for which direction"),
    "import-weights": ("import_weights", "turn an author's published checkpoint into a model package"),
}

_EVERYWHERE = {"--json-errors", "--debug"}
_EPILOG = """\
exit codes: 0 done, 2 usage, 3 bad input, 4 resources, 70 a defect of medxlate, 130 cancelled
Synthetic images are for research use only, not for diagnosis."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    _let_any_text_through()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json-errors" in argv or ("--json" in argv and "evaluate" not in argv[:1])
    try:
        parser = _parser(argv)
        # taken out here, so that they may also stand behind an action such as `models verify`
        options = parser.parse_args([word for word in argv if word not in _EVERYWHERE])
        if not hasattr(options, "run"):
            parser.print_help()
            return 2
        code = int(options.run(options))
        sys.stdout.flush()  # here, where a reader that went away is noticed
        return code
    except MedXlateError as error:
        return _report(error, as_json)
    except KeyboardInterrupt:
        return _report(Cancelled("command line"), as_json)
    except MemoryError:
        return _report(
            ResourceError("MX-RES-001", "memory ran out", fix="close other programs or use a smaller volume"), as_json
        )
    except BrokenPipeError:  # the reader of our output went away, as in `medxlate ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        return 0
    except ModuleNotFoundError as error:
        lack = ResourceError.missing_library(error, "command line")
        return _report(lack or _defect(error, "--debug" in argv), as_json)
    except Exception as error:  # noqa: BLE001 - the outermost edge: nobody is shown a traceback unasked
        return _report(_defect(error, "--debug" in argv), as_json)


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line like every other error, and takes options by their full names only.

    A script with an abbreviated option would change its meaning with the next option that begins alike.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Raise ``MX-USE-001`` where argparse would print and exit."""
        raise UsageError(
            "MX-USE-001",
            message,
            expected=" ".join(self.format_usage().removeprefix("usage:").split()),
            where="command line",
            fix=f"see `{self.prog} --help`",
        )


def _parser(argv: list[str]) -> _Parser:
    parser = _Parser(
        prog="medxlate",
        description="Missing-sequence synthesis for medical images, with region prompts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"medxlate {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    wanted = next((word for word in argv if word in COMMANDS), None)
    for name, (module_name, text) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        # `evaluate --json FILE` names the file of results and `describe --json` prints JSON: spelled out there
        flags = ["--json-errors"] if name in {"evaluate", "describe"} else ["--json", "--json-errors"]
        note = "errors as one JSON object on stderr"
        subparser.add_argument(*flags, dest="json_errors", action="store_true", help=note)
        subparser.add_argument("--debug", action="store_true", help="show where a defect of medxlate happened")
        if name == wanted:  # the other commands' modules need not be imported to parse this line
            module = importlib.import_module(f"MedXlateCore.commands.{module_name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def _let_any_text_through() -> None:
    """Escape what the terminal's encoding lacks: a file's name must not make a finished run fail."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _defect(error: Exception, debug: bool) -> InternalError:
    """Return the error for an exception that nobody expected; with ``debug``, print its traceback first."""
    if debug:
        traceback.print_exception(error)
    return InternalError.from_exception(error)


def _report(error: MedXlateError, as_json: bool) -> int:
    text = json.dumps(error.as_dict(), ensure_ascii=False) if as_json else error.as_text()
    print(text, file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
