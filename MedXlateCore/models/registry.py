"""The registry of methods. A module of this package that decorates a ``Method`` with ``register_model`` is found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import MedXlateCore.models
from MedXlateCore.config import nearest, read_dataclass
from MedXlateCore.errors import UsageError
from MedXlateCore.models.method import Method

__all__ = ["get_method", "get_preset", "get_recipe_preset", "list_methods", "register_model"]

MethodType = TypeVar("MethodType", bound=type[Method])
_METHODS: dict[str, Method] = {}


def register_model(name: str) -> Callable[[MethodType], MethodType]:
    """Register a ``Method`` subclass under ``name`` (class decorator).

    Raises:
        UsageError: ``MX-MOD-002``, another method has this name.
    """

    def register(method_type: MethodType) -> MethodType:
        """Name the class and keep one instance of it."""
        taken = _METHODS.get(name)
        if taken is not None and type(taken).__qualname__ != method_type.__qualname__:
            raise UsageError(
                "MX-MOD-002",
                f"two methods are registered as '{name}': {type(taken).__qualname__} and {method_type.__qualname__}",
                expected="one method a name",
                fix="rename one of them",
            )
        method_type.name = name
        _METHODS[name] = method_type()
        return method_type

    return register


def get_method(name: str) -> Method:
    """Return the method registered as ``name``.

    Raises:
        UsageError: ``MX-MOD-001``, there is no such method.
    """
    known = list_methods()
    if name not in known:
        raise UsageError(
            "MX-MOD-001",
            f"the method '{name}' is not known",
            expected=f"one of {', '.join(known)}",
            fix=f"did you mean '{guess}'?" if (guess := nearest(name, known)) else "choose one of these methods",
        )
    return _METHODS[name]


def list_methods() -> tuple[str, ...]:
    """Return the names of all methods, sorted."""
    _discover()
    return tuple(sorted(_METHODS))


def get_preset(method: Method, preset: str, overrides: Mapping[str, Any] | None = None, where: str = "") -> Any:
    """Return a method's configuration: a preset, with some fields replaced.

    Raises:
        UsageError: ``MX-MOD-003`` (no such preset); ``MX-USE-040`` to ``-042`` for the overrides; or what the
            configuration itself refuses.
    """
    _check_preset(method, preset)
    return read_dataclass(method.config_type, overrides or {}, where, base=method.presets[preset])


def get_recipe_preset(method: Method, preset: str, overrides: Mapping[str, Any] | None = None, where: str = "") -> Any:
    """Return a method's recipe configuration for a preset, with some fields replaced. Raises as ``get_preset``."""
    _check_preset(method, preset)
    base = method.recipe_presets.get(preset, method.recipe_type())
    return read_dataclass(method.recipe_type, overrides or {}, where, base=base)


def _check_preset(method: Method, preset: str) -> None:
    if preset not in method.presets:
        raise UsageError(
            "MX-MOD-003",
            f"the method '{method.name}' has no preset '{preset}'",
            expected=f"one of {', '.join(method.presets)}",
            fix=f"did you mean '{guess}'?"
            if (guess := nearest(preset, method.presets))
            else "choose one of these presets",
        )


@cache
def _discover() -> None:
    """Import every module of ``MedXlateCore.models`` once, so that each may register its method."""
    for module in pkgutil.iter_modules(MedXlateCore.models.__path__):
        if not module.ispkg:
            importlib.import_module(f"{MedXlateCore.models.__name__}.{module.name}")
