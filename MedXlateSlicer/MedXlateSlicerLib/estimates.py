"""How long a run may take, from earlier runs of the same model on the same device."""

from __future__ import annotations

from typing import Any, Protocol

from MedXlateSlicerLib.texts import tr as _

__all__ = ["Store", "duration_text", "expected_seconds", "remaining_text", "remember_run"]

_MEGAVOXEL = 1e6


class Store(Protocol):
    """Where figures are kept between sessions; the application's settings are one."""

    def value(self, key: str, default: Any = None) -> Any:
        """Return what is kept under a key."""

    def setValue(self, key: str, value: Any) -> None:
        """Keep a value."""


def expected_seconds(store: Store, sha256: str, device: str, voxels: int) -> float | None:
    """Return the seconds a full run will probably take; None before the first one.

    Args:
        store: settings.
        sha256: of the model's weights.
        device: as chosen in the panel.
        voxels: of the result.
    """
    try:
        rate = float(store.value(_key(sha256, device), 0.0) or 0.0)
    except (TypeError, ValueError):  # settings edited by hand
        return None
    return rate * voxels / _MEGAVOXEL if rate > 0 else None


def remember_run(store: Store, sha256: str, device: str, voxels: int, seconds: float) -> None:
    """Keep what a full run took, in seconds a million voxels; the newest counts half."""
    if voxels > 0 and seconds > 0:
        before = expected_seconds(store, sha256, device, int(_MEGAVOXEL))
        rate = seconds * _MEGAVOXEL / voxels
        store.setValue(_key(sha256, device), round(rate if before is None else (rate + before) / 2, 4))


def duration_text(seconds: float | None) -> str:
    """Return a duration in words."""
    if seconds is None:
        return _("known after the first run with this model and device")
    if seconds < 10:
        return _("a few seconds")
    if seconds < 90:
        return _("about {n} seconds").format(n=5 * round(seconds / 5))
    return _("about {n} minutes").format(n=round(seconds / 60))


def remaining_text(elapsed: float, done: int, total: int) -> str:
    """Return what is left of a run, from what it took so far; nothing before a tenth is done."""
    if done <= 0 or total <= 0 or done < total / 10:
        return ""
    return _("{time} left").format(time=duration_text(elapsed / done * (total - done)))


def _key(sha256: str, device: str) -> str:
    return f"MedXlate/secondsPerMegavoxel/{sha256[:16]}/{device.replace(':', '-')}"
