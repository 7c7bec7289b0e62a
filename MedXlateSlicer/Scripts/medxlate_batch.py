"""Translate many cases inside 3D Slicer, without its window:

    Slicer --no-splash --no-main-window --python-script medxlate_batch.py --input cases.csv --model starter \\
        --target T1ce --output results

Options and exit codes are those of ``medxlate batch``; ``--batch-help`` lists them (Slicer takes ``--help`` itself).
Slicer does not end by itself after such a script, not even after an error; therefore everything here ends in an exit.
On Linux without a screen, start it under ``xvfb-run``.
"""

import os
import sys
import traceback
from pathlib import Path

DEFECT = 70


def find_core() -> None:
    """Make ``MedXlateCore`` importable: it lies above this folder in a checkout, beside the modules once installed."""
    here = Path(globals().get("__file__", sys.argv[0])).resolve().parent
    # installed: lib/Slicer-X.Y/qt-scripted-modules[/Scripts]; checkout: MedXlateSlicer/Scripts, the library two above
    for folder in (here, here.parent, here.parent.parent, here.parent / "qt-scripted-modules"):
        if (folder / "MedXlateCore" / "__init__.py").is_file():
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
            return


def run(arguments: list[str]) -> int:
    """Run the batch and return its exit code; nothing is raised."""
    words = ["--help" if word == "--batch-help" else word for word in arguments]
    try:
        find_core()
        from MedXlateCore.cli import main

        return main(["batch", *words])
    except SystemExit as end:  # the list of options was asked for
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, Slicer would stay open for ever
        traceback.print_exc()
        return DEFECT


def leave(code: int) -> None:
    """End the application with an exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        import slicer

        leave_application = slicer.util.exit
    except (ImportError, AttributeError):  # plain Python
        sys.exit(code)
    try:
        leave_application(code)
    except Exception:  # noqa: BLE001 - as above
        traceback.print_exc()
        os._exit(code)


if __name__ == "__main__":
    leave(run(sys.argv[1:]))
