"""The panel's model manager: a table of what is installed, a card, and add, verify, delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from MedXlateCore.errors import MedXlateError
from MedXlateCore.models.catalogue import InstalledPackage, list_packages
from MedXlateSlicerLib.models import add_package, card_text, delete_package, is_removable, verify_package
from MedXlateSlicerLib.texts import tr as _
from MedXlateSlicerLib.widgets import cell, quiet, set_row, set_text

__all__ = ["ModelsSection"]


class ModelsSection:
    """Shows and manages models. Errors are written below the table.

    Args:
        ui: the panel's widgets by name.
        on_change: called when models came or went.
    """

    def __init__(self, ui: Any, on_change: Callable[[], None]) -> None:
        self._ui = ui
        self._on_change = on_change
        self._busy = False
        self.entries: Sequence[InstalledPackage] = ()
        ui.modelsTable.horizontalHeader().setStretchLastSection(True)
        ui.modelsTable.verticalHeader().visible = False
        ui.modelsTable.connect("itemSelectionChanged()", self._show_card)
        ui.addModelButton.connect("clicked()", self.add)
        ui.verifyModelButton.connect("clicked()", self.verify)
        ui.deleteModelButton.connect("clicked()", self.delete)

    def reload(self) -> None:
        """Look what is installed."""
        self.entries = tuple(list_packages())
        table, selected = self._ui.modelsTable, self._selected()
        with quiet(table):
            table.setRowCount(len(self.entries))
            for row, entry in enumerate(self.entries):
                set_row(table, row, _columns(entry), "" if entry.problem is None else entry.problem.as_text())
        names = [entry.name for entry in self.entries]
        if names:
            table.selectRow(names.index(selected.name) if selected and selected.name in names else 0)
        table.resizeColumnsToContents()
        self._show_card()

    def set_busy(self, busy: bool) -> None:
        """Keep models as they are while one is used."""
        self._busy = busy
        self._enable()

    def add(self) -> None:
        """Ask for a folder and copy the model in it."""
        import qt

        folder = qt.QFileDialog.getExistingDirectory(self._ui.modelsSection, _("Folder of a model package"))
        if folder:
            self._do(lambda: _("{name} was added.").format(name=add_package(Path(folder)).name))

    def verify(self) -> None:
        """Compare the chosen model's weights with its card."""
        entry = self._selected()
        if entry is not None:
            self._do(lambda: _("{name} is sound.").format(name=verify_package(entry.path).name))

    def delete(self) -> None:
        """Delete the chosen model, after asking."""
        import slicer

        entry = self._selected()
        if entry is None:
            return
        question = _("Delete the model {name} from this computer?\n{path}").format(name=entry.name, path=entry.path)
        if slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Delete model")):
            self._do(lambda: delete_package(entry) or _("{name} was deleted.").format(name=entry.name))

    def _do(self, action: Callable[[], str]) -> None:
        try:
            text = action()
        except MedXlateError as error:
            text = error.as_text()
        set_text(self._ui.modelsText, text)
        self.reload()
        self._on_change()

    def _selected(self) -> InstalledPackage | None:
        name = cell(self._ui.modelsTable, self._ui.modelsTable.currentRow(), 0)
        return next((entry for entry in self.entries if entry.name == name), None)

    def _show_card(self) -> None:
        entry = self._selected()
        set_text(self._ui.cardText, card_text(entry) if entry else "")
        self._enable()

    def _enable(self) -> None:
        entry = self._selected()
        self._ui.addModelButton.enabled = not self._busy
        self._ui.verifyModelButton.enabled = entry is not None and not self._busy
        self._ui.deleteModelButton.enabled = entry is not None and is_removable(entry) and not self._busy


def _columns(entry: InstalledPackage) -> list[str]:
    if entry.card is None:
        return [
            entry.name,
            "",
            "",
            _("cannot be used: {code}").format(code=entry.problem.code if entry.problem else ""),
        ]
    card = entry.card
    region = [_("region")] if card.prompts == "region" else []
    return [entry.name, ", ".join(card.targets), ", ".join([*card.all_sources, *region]), card.version]
