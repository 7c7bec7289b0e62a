"""Ctrl-C and termination requests, turned into a flag that the training loop looks at between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "Interruption"]


class Interrupted(Exception):
    """Training was asked to stop; raised inside the loop and turned into ``Cancelled`` at its edge."""


class Interruption:
    """While entered, SIGINT and SIGTERM only set ``requested``; a second one acts as usual.

    Signals reach the main thread only; in other threads (a graphical program) call :meth:`request`.
    """

    def __init__(self) -> None:
        self.requested = False
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def request(self) -> None:
        """Ask to stop after the current step."""
        self.requested = True

    def check(self) -> None:
        """Raise :class:`Interrupted` if asked to stop."""
        if self.requested:
            raise Interrupted

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier = {}
