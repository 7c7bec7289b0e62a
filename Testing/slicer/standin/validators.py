"""Annotations of typed parameters: validators, and hints for widgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin


class Validator:
    """Base of validators; `validate` raises for a value that is refused."""

    def validate(self, value: Any) -> None:
        """Raise ValueError or TypeError where the value is refused."""


class NotNone(Validator):
    """Refuses None."""

    def validate(self, value: Any) -> None:
        """Raise where the value is None."""
        if value is None:
            raise ValueError("Value must not be None")


class IsInstance(Validator):
    """Refuses values of other types."""

    def __init__(self, classtype: Any) -> None:
        self.classtype = classtype

    def validate(self, value: Any) -> None:
        """Raise where the value is of another type; None is left to NotNone."""
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"Value must be of type '{self.classtype}', is type '{type(value)}' value '{value}'")


class WithinRange(Validator):
    """Refuses numbers outside [minimum, maximum]."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        """Raise where the number lies outside."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


class Minimum(Validator):
    """Refuses numbers below."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def validate(self, value: Any) -> None:
        """Raise where the number lies below."""
        if value < self.minimum:
            raise ValueError(f"Value must be greater than or equal to {self.minimum}, is {value}")


class Maximum(Validator):
    """Refuses numbers above."""

    def __init__(self, maximum: float) -> None:
        self.maximum = maximum

    def validate(self, value: Any) -> None:
        """Raise where the number lies above."""
        if value > self.maximum:
            raise ValueError(f"Value must be less than or equal to {self.maximum}, is {value}")


class Choice(Validator):
    """Refuses what is not one of the choices."""

    def __init__(self, choices: Any) -> None:
        self.choices = choices

    def validate(self, value: Any) -> None:
        """Raise where the value is none of the choices."""
        if value not in self.choices:
            raise ValueError(f"Value must be in {self.choices}, is {value}")


class Exclude(Validator):
    """Refuses some values."""

    def __init__(self, excludedValues: Any) -> None:
        self.excludedValues = excludedValues

    def validate(self, value: Any) -> None:
        """Raise where the value is one of them."""
        if value in self.excludedValues:
            raise ValueError(f"Value must not be in {self.excludedValues}, is {value}")


@dataclass
class Default:
    """The value of a parameter that was never set."""

    value: Any


@dataclass
class Decimals:
    """Decimals that a spin box or slider shows."""

    value: int


@dataclass
class SingleStep:
    """Step of a spin box or slider."""

    value: float


@dataclass
class Label:
    """The label of a generated widget."""

    value: str


def splitAnnotations(possiblyAnnotatedType: Any) -> tuple[Any, list[Any]]:
    """Return the plain type and its annotations."""
    if get_origin(possiblyAnnotatedType) is Annotated:
        plain, *annotations = get_args(possiblyAnnotatedType)
        return plain, annotations
    return possiblyAnnotatedType, []


def unannotatedType(possiblyAnnotatedType: Any) -> Any:
    """Return the plain type."""
    return splitAnnotations(possiblyAnnotatedType)[0]


def findFirstAnnotation(annotationsList: list[Any], annotationType: type) -> Any:
    """Return the first annotation of that type, or None."""
    return next((a for a in annotationsList if isinstance(a, annotationType)), None)
