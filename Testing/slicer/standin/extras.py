"""slicer.i18n, slicer.testing, slicer.packaging and SampleData: small modules of the application."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from subprocess import CalledProcessError
from types import ModuleType
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


def i18n() -> ModuleType:
    """Return slicer.i18n: texts stay as they are."""
    module = ModuleType("slicer.i18n")
    module.getContext = lambda sourceFile: Path(sourceFile).stem
    module.tr = lambda text: text
    module.translate = lambda context, text: text
    return module


def testing() -> ModuleType:
    """Return slicer.testing: leaving the application raises."""
    module = ModuleType("slicer.testing")

    def exit_failure(message: str = "") -> None:
        raise SystemExit(message or 1)

    def exit_success() -> None:
        raise SystemExit(0)

    module.exitFailure, module.exitSuccess = exit_failure, exit_success
    return module


class Packages:
    """What was asked of pip; nothing is installed. `decline` and `fail` say how the next request ends."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any, dict[str, Any]]] = []
        self.decline = False
        self.fail = False

    def request(self, name: str, requirements: Any, **keywords: Any) -> list[str]:
        """Remember a request and end it as the test says: declined, failed or done."""
        self.requests.append((name, requirements, keywords))
        if self.decline:
            raise RuntimeError("User declined package installation")
        if self.fail:
            raise CalledProcessError(1, ["pip", "install"])
        return []

    def module(self) -> ModuleType:
        """Return slicer.packaging."""
        module = ModuleType("slicer.packaging")
        module.CalledProcessError, module.InvalidRequirement, module.Path = CalledProcessError, InvalidRequirement, Path
        module.Requirement, module.canonicalize_name = Requirement, canonicalize_name
        module.load_requirements, module.pip_check = load_requirements, pip_check
        module.isPipInstallInProgress = lambda: False

        def pip_ensure(
            requirements: Any,
            constraints: Any = None,
            skip_packages: Any = None,
            prompt_install: bool = True,
            prompt_restart: bool = True,
            requester: str | None = None,
            skip_in_testing: bool = True,
            show_progress: bool = True,
        ) -> list[str] | None:
            if pip_check(requirements):
                return []
            return self.request("pip_ensure", requirements, constraints=constraints, requester=requester)

        def pip_install(
            requirements: Any,
            constraints: Any = None,
            no_deps_requirements: Any = None,
            skip_packages: Any = None,
            blocking: bool = True,
            show_progress: bool = True,
            requester: str | None = None,
            logCallback: Any = None,
            completedCallback: Any = None,
        ) -> list[str] | None:
            return self.request("pip_install", requirements, constraints=constraints, requester=requester)

        def pip_uninstall(
            requirements: Any, blocking: bool = True, logCallback: Any = None, completedCallback: Any = None
        ) -> None:
            self.request("pip_uninstall", requirements)

        module.pip_ensure, module.pip_install, module.pip_uninstall = pip_ensure, pip_install, pip_uninstall
        return module


def load_requirements(path: Any) -> list[Requirement]:
    """Return the requirements of a file, without comments and pip's options."""
    lines = (line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def pip_check(req: Any) -> bool:
    """Say whether the requirements are met by what is installed."""
    for wanted in req if isinstance(req, list) else [req]:
        requirement = Requirement(str(wanted))
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return False
        if not requirement.specifier.contains(version, prereleases=True):
            return False
    return True


def sample_data(registered: list[dict[str, Any]]) -> ModuleType:
    """Return the module SampleData: sources are remembered, nothing is downloaded."""
    module = ModuleType("SampleData")

    class SampleDataLogic:
        """Where modules register their sample data."""

        @staticmethod
        def registerCustomSampleDataSource(
            category: str = "Custom",
            sampleName: Any = None,
            uris: Any = None,
            fileNames: Any = None,
            nodeNames: Any = None,
            customDownloader: Any = None,
            thumbnailFileName: Any = None,
            loadFileType: Any = None,
            loadFiles: Any = None,
            loadFileProperties: Any = None,
            checksums: Any = None,
        ) -> None:
            """Remember the source; refuse lists that are missing or not of one length, as the application does."""
            facts = {key: value for key, value in locals().items() if value is not None}
            if not isinstance(uris, str):
                lengths = {len(uris), len(fileNames), len(nodeNames or uris), len(checksums or uris)}
                if len(lengths) > 1:
                    raise ValueError("All fields of sample data source must have the same length")
            registered.append(facts)

    module.SampleDataLogic = SampleDataLogic
    return module
