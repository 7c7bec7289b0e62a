"""Experiment files to start from: the comparisons and ablations of the publications, ready to be filled in."""

from __future__ import annotations

from importlib import resources

from MedXlateCore.config import nearest
from MedXlateCore.errors import UsageError

__all__ = ["list_templates", "template_text"]

_PUBLISHED = "published.toml"


def list_templates() -> dict[str, str]:
    """Return all templates: their names and what they say in their first line."""
    folder = resources.files("MedXlateCore") / "resources" / "experiments"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    texts = {name.removesuffix(".toml"): (folder / name).read_text("utf-8") for name in names if name != _PUBLISHED}
    return {name: text.splitlines()[0].lstrip("# ") for name, text in texts.items()}


def template_text(name: str) -> str:
    """Return a template's TOML text.

    Raises:
        UsageError: ``MX-EXP-009``, there is no such template.
    """
    known = list_templates()
    if name not in known:
        guess = nearest(name, known)
        raise UsageError(
            "MX-EXP-009",
            f"the template '{name}' is not known",
            expected=f"one of {', '.join(known)}",
            where="--template",
            fix=f"did you mean '{guess}'?" if guess else "see medxlate experiment --list-templates",
        )
    return (resources.files("MedXlateCore") / "resources" / "experiments" / f"{name}.toml").read_text("utf-8")
