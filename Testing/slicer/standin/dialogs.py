"""Dialogs without anybody at the screen: what was shown is kept, questions are answered as the test says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# functions of classes that would wait for the user
ASKING = {
    "QMessageBox": {"question", "information", "warning", "critical"},
    "QFileDialog": {"getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory"},
    "QInputDialog": {"getText", "getInt", "getDouble", "getItem", "getMultiLineText"},
    "QColorDialog": {"getColor"},
    "QDesktopServices": {"openUrl"},
}
# methods of objects that would wait for the user
WAITING = {"exec", "exec_"}
OK = 1024


@dataclass(frozen=True)
class Shown:
    """One dialog: which function or class, its text, title, buttons and other keywords."""

    kind: str
    text: str
    title: str = ""
    buttons: int | None = None
    details: str = ""


class Unanswered(AssertionError):
    """A dialog would have waited for an answer that the test did not give."""


class Dialogs:
    """The dialogs of one test."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self._answers: list[Any] = []

    def answer(self, *values: Any) -> None:
        """Answer the next dialogs with these values, in this order."""
        self._answers.extend(values)

    @property
    def texts(self) -> list[str]:
        """The texts of all dialogs shown."""
        return [dialog.text for dialog in self.shown]

    @property
    def unused_answers(self) -> list[Any]:
        """Answers to dialogs that never came."""
        return list(self._answers)

    def _reply(self, dialog: Shown, default: Any = None) -> Any:
        self.shown.append(dialog)
        if self._answers:
            return self._answers.pop(0)
        if default is None:
            raise Unanswered(f"a dialog waits for an answer: {dialog}")
        return default

    def message_box(self, text: str, parent: Any = None, **keywords: Any) -> int:
        """Stand in for slicer.util.messageBox: a box with nothing but Ok answers itself."""
        buttons = keywords.get("standardButtons")
        only_ok = buttons is None or int(buttons) == OK
        details = str(keywords.get("detailedText", ""))
        dialog = Shown(
            "messageBox", str(text), keywords.get("windowTitle") or "", None if only_ok else int(buttons), details
        )
        if only_ok:
            self.shown.append(dialog)
            return OK
        return self._reply(dialog)

    def delay_display(self, message: str, autoCloseMsec: int = 1000, parent: Any = None, **keywords: Any) -> None:
        """Stand in for slicer.util.delayDisplay: nothing waits."""
        self.shown.append(Shown("delayDisplay", str(message)))

    def ask(self, label: str, name: str, *arguments: Any) -> Any:
        """Stand in for a static function that asks; web pages are not opened, only remembered."""
        texts = [
            str(a.toString() if hasattr(a, "toString") else a)
            for a in arguments
            if isinstance(a, str) or hasattr(a, "toString")
        ]
        dialog = Shown(f"{label}.{name}", texts[-1] if texts else "", texts[0] if texts else "")
        return self._reply(dialog, default=True if label == "QDesktopServices" else None)

    def execute(self, wrapper: Any, label: str) -> Any:
        """Stand in for exec() of a dialog or a menu; an answer that can be called is called with the dialog."""
        text = next(
            (getattr(wrapper, key) for key in ("text", "windowTitle") if isinstance(getattr(wrapper, key, None), str)),
            "",
        )
        reply = self._reply(Shown(f"{label}.exec", text, getattr(wrapper, "windowTitle", "") or ""))
        return reply(wrapper) if callable(reply) else reply
