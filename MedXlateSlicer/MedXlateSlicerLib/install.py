"""What MedXlate needs and 3D Slicer does not bring: found missing on Apply, asked for, installed, proven to work.

Nothing is installed when a module is loaded or opened. torch comes from the PyTorch extension alone, which picks the
build that fits the GPU; the rest through ``slicer.packaging`` (Slicer 5.12 and newer) or ``slicer.util.pip_install``.
Whatever is installed already stays exactly as it is: it goes into a file of constraints.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedXlateCore.errors import Cancelled, ResourceError
from MedXlateSlicerLib.runner import worker_command, worker_environment
from MedXlateSlicerLib.texts import tr as _

__all__ = [
    "NEEDED_TO_TRANSLATE",
    "Missing",
    "ensure",
    "import_problem",
    "installed_constraints",
    "missing_requirements",
]

TORCH = "torch"
NEEDED_TO_TRANSLATE = frozenset({TORCH, "numpy", "scipy", "safetensors"})
"""Without these no node is translated; the others read and write files."""
_VERSION = re.compile(r"v?\d[A-Za-z0-9._+!-]*")
_NAME = re.compile(r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?P<limits>[<>=!~][^;#]*)?")
_MODULES = {"pillow": "PIL"}  # distribution -> module, where they differ
_TIMEOUT_S = 180
Ask = Callable[[str], bool]


@dataclass(frozen=True)
class Missing:
    """One requirement that is not met.

    Attributes:
        name: of the distribution.
        requirement: as in ``requirements.txt``.
        found: the version that is installed, or an empty text.
    """

    name: str
    requirement: str
    found: str = ""


def missing_requirements(requirements: Path) -> list[Missing]:
    """Return the requirements that are not installed, or too old. Looks at metadata where there is some.

    Args:
        requirements: list of them; torch is in it for its lower bound.
    """
    missing = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        match = _NAME.match(line)
        if match is None or line.lstrip().startswith(("#", "-")):
            continue
        version = _version(match["name"])
        if not version or not _satisfies(version, match["limits"] or ""):
            missing.append(Missing(match["name"], line.split("#")[0].strip(), version))
    return missing


def ensure(
    requirements: Path, ask: Ask | None = None, *, needed: Collection[str] | None = None, load_here: bool = True
) -> list[str]:
    """Install what is missing, after asking once; return the names of what was installed.

    Args:
        requirements: the list of requirements.
        ask: shows a question and returns whether the user agrees; by default a dialog of the application.
        needed: names without which it cannot go on; while all of these are there nothing is asked. None: all.
        load_here: torch will be loaded into the application itself, so it is tried first; False where a worker loads
            it, which tells by itself what is wrong.

    Raises:
        Cancelled: the user declined.
        ResourceError: ``MX-SLI-160`` (there is no PyTorch extension), ``MX-SLI-161`` (an installation failed),
            ``MX-SLI-162`` (something is installed but cannot be loaded).
    """
    missing = missing_requirements(requirements)
    if not [item for item in missing if needed is None or item.name in needed]:
        if load_here:
            _require_loadable()
        return []
    names = [item.name for item in missing]
    if not (ask or _dialog)(_question(missing)):
        raise Cancelled("installation")
    if TORCH in names:
        _install_torch(next(item for item in missing if item.name == TORCH))
    others = [item.requirement for item in missing if item.name != TORCH]
    if others:
        _install(others)
    importlib.invalidate_caches()
    still = missing_requirements(requirements)
    if still:
        raise _failed(f"{', '.join(item.name for item in still)} still missing after the installation")
    _require_loadable()
    return names


def import_problem(modules: Sequence[str] = (TORCH,)) -> str:
    """Return why modules cannot be imported, or an empty text. Tried in a process of its own: a broken torch can
    crash the application, and one that was loaded cannot be repaired while it runs.
    """
    command = [*worker_command(), "-c", f"import {', '.join(modules)}"]
    options: dict[str, Any] = {"creationflags": getattr(subprocess, "CREATE_NO_WINDOW", 0)}
    options["env"] = {**os.environ, **worker_environment()}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False, text=True, **options)
    except subprocess.TimeoutExpired:
        return f"it did not load within {_TIMEOUT_S} s"
    except OSError as error:
        return f"Python cannot be started: {error}"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1][:300] if lines else f"the process ended with code {done.returncode}"


def installed_constraints() -> list[str]:
    """Return ``name==version`` for all that is installed, so that pip changes none of it."""
    versions = {}
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(KeyError, TypeError, ValueError):  # a half-written installation
            name, version = distribution.metadata["Name"], distribution.version
            # pip refuses a whole file for one version that is none
            if name and re.fullmatch(r"[A-Za-z0-9._-]+", name) and _VERSION.fullmatch(version or ""):
                versions[name.lower()] = f"{name}=={version}"
    return [versions[name] for name in sorted(versions)]


# --- how -----------------------------------------------------------------------------------------------------------


def _install_torch(item: Missing) -> None:
    """Let the PyTorch extension install torch, with the arguments that its version knows."""
    try:
        module = importlib.import_module("PyTorchUtils")
    except ImportError as error:
        raise ResourceError(
            "MX-SLI-160",
            "the PyTorch extension is not installed",
            expected="the extension 'PyTorch', which picks the build that fits this computer",
            where="Extensions Manager",
            fix="install 'PyTorch' in the Extensions Manager, restart 3D Slicer and press Apply again",
        ) from error
    wishes = {"askConfirmation": False, "torchVersionRequirement": item.requirement.removeprefix(TORCH).strip()}
    try:
        install = module.PyTorchUtilsLogic().installTorch
        known = inspect.signature(install).parameters
        result = install(**{name: value for name, value in wishes.items() if name in known})
    except Exception as error:  # foreign code: it raises what it likes, the user gets advice
        raise _failed(f"the PyTorch extension could not install torch ({type(error).__name__}: {error})") from error
    if result is None:
        raise Cancelled("installation of PyTorch")


def _install(requirements: list[str]) -> None:
    """Install distributions without touching those that are there."""
    with _constraints() as constraints:
        try:
            packaging = _packaging()
            if packaging is not None:
                packaging.pip_ensure(
                    [packaging.Requirement(text) for text in requirements],  # 5.12.0 takes no plain texts
                    constraints=constraints, prompt_install=False, prompt_restart=False,
                    requester="MedXlate",
                )  # fmt: skip
            else:
                quoted = " ".join(f'"{text}"' for text in requirements)
                importlib.import_module("slicer.util").pip_install(f'{quoted} --only-binary=:all: -c "{constraints}"')
        except Exception as error:  # as above
            raise _failed(f"pip could not install {', '.join(requirements)} ({error})") from error


def _packaging() -> Any:
    """Return ``slicer.packaging``; None before Slicer 5.12."""
    try:
        return importlib.import_module("slicer.packaging")
    except ImportError:
        return None


def _dialog(question: str) -> bool:
    util = importlib.import_module("slicer.util")
    return bool(util.confirmOkCancelDisplay(question, windowTitle="MedXlate"))


@contextlib.contextmanager
def _constraints() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="medxlate-") as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("\n".join(installed_constraints()) + "\n", encoding="utf-8")
        yield str(path)


def _require_loadable() -> None:
    if TORCH in sys.modules:  # loaded here already: it works
        return
    problem = import_problem()
    if problem:
        raise ResourceError(
            "MX-SLI-162",
            f"PyTorch is installed but cannot be loaded: {problem}",
            expected="an installation that is whole and fits this computer's driver",
            where="Python of 3D Slicer",
            fix="open the module 'PyTorch Utils', uninstall PyTorch, restart 3D Slicer and press Apply again",
        )


def _failed(text: str) -> ResourceError:
    return ResourceError(
        "MX-SLI-161",
        text,
        expected="a connection to the package index, a disk with room, and no program that blocks them",
        where="installation",
        fix="look at the log (Help, Report a Bug), check proxy and antivirus, restart 3D Slicer and press Apply again",
    )


def _question(missing: Sequence[Missing]) -> str:
    lines = [f"{item.requirement}{f' (now {item.found})' if item.found else ''}" for item in missing]
    size = _("\nPyTorch takes up to 3 GB, and some minutes.") if TORCH in {item.name for item in missing} else ""
    text = _("MedXlate needs these Python packages:\n\n{packages}\n{size}\nInstall them now?")
    return text.format(packages="\n".join(lines), size=size)


def _version(name: str) -> str:
    """Return the version that is installed; empty if there is none or its metadata is only half there."""
    try:
        version = importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, KeyError, TypeError):
        # a program's own build has a module and no metadata, as SimpleITK in older 3D Slicer
        return _module_version(_MODULES.get(name.lower(), name)) if name != TORCH else ""
    return version or ""


def _module_version(module: str) -> str:
    try:
        return str(getattr(importlib.import_module(module), "__version__", ""))
    except ImportError:
        return ""


def _satisfies(version: str, limits: str) -> bool:
    """Compare with lower bounds only: that is all our requirements have."""
    bounds = [bound.strip() for bound in limits.split(",") if bound.strip().startswith(">=")]
    return all(_numbers(version) >= _numbers(bound[2:]) for bound in bounds)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3])
