"""Widgets of the Common Toolkit that Slicer modules use."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Qt
from PySide6.QtWidgets import QWidget

from .custom import define


class CollapsibleButton:
    """A header with the text; a click on it shows or hides the contents."""

    DEFAULTS = {"collapsed": False, "flat": False}

    def __init__(self, *arguments: Any) -> None:
        text = [a for a in arguments if isinstance(a, str)]
        QtWidgets.QAbstractButton.__init__(self, *(a for a in arguments if isinstance(a, QWidget)))
        self.setText(text[0] if text else "")
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, self.header(), 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)
        self.toggled.connect(lambda shown: self.set_collapsed(not shown))

    def header(self) -> int:
        """Return the height of the header."""
        return self.fontMetrics().height() + 8

    def set_collapsed(self, collapsed: bool) -> None:
        """Show or hide the contents."""
        if collapsed == self.stored("collapsed"):
            return
        self.store("collapsed", collapsed)
        for child in self.findChildren(QWidget, options=Qt.FindChildOption.FindDirectChildrenOnly):
            child.setVisible(not collapsed)
        self.setChecked(not collapsed)
        self.setMaximumHeight(self.header() if collapsed else 16777215)
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    collapsed = Property(bool, lambda self: self.stored("collapsed"), set_collapsed)

    def sizeHint(self) -> QtCore.QSize:
        """Return the size of the contents below the header."""
        inner = self.layout().sizeHint() if self.layout() else QtCore.QSize(0, 0)
        if self.stored("collapsed"):
            inner = QtCore.QSize(inner.width(), self.header())
        return inner.expandedTo(QtCore.QSize(80, self.header()))

    def hitButton(self, place: QtCore.QPoint) -> bool:
        """Take clicks on the header only."""
        return place.y() < self.header()

    def paintEvent(self, event: Any) -> None:
        """Paint the header: an arrow and the text."""
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), self.header())
        option.text = ("▸ " if self.stored("collapsed") else "▾ ") + self.text()
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButton, option)


class SliderWidget:
    """A slider and a spin box with one value; the value stays within the range, as Qt's do."""

    DEFAULTS = {"minimum": 0.0, "maximum": 99.0, "singleStep": 1.0, "pageStep": 10.0, "decimals": 2, "tracking": True}

    def __init__(self, parent: QWidget | None = None) -> None:
        QWidget.__init__(self, parent)
        self.slider, self.spin = QtWidgets.QSlider(Qt.Orientation.Horizontal, self), QtWidgets.QDoubleSpinBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.slider)
        row.addWidget(self.spin)
        self.adopt()
        self.spin.valueChanged.connect(self.setValue)
        self.slider.valueChanged.connect(
            lambda step: self.setValue(self.stored("minimum") + step * self.stored("singleStep"))
        )

    def adopt(self) -> None:
        """Give the parts the range and the step, and the value its place in it."""
        low, high, step = (self.stored(key) for key in ("minimum", "maximum", "singleStep"))
        value = min(max(self.stored("value") or 0.0, low), high)
        with QtCore.QSignalBlocker(self.spin), QtCore.QSignalBlocker(self.slider):
            self.spin.setDecimals(self.stored("decimals"))
            self.spin.setRange(low, high)
            self.spin.setSingleStep(step)
            self.spin.setSuffix(self.stored("suffix") or "")
            self.spin.setPrefix(self.stored("prefix") or "")
            self.slider.setRange(0, round((high - low) / step) if step else 0)
            self.spin.setValue(value)
            self.slider.setValue(round((value - low) / step) if step else 0)

    def changed(self, name: str, value: Any) -> None:
        """Adopt a new range; a value outside moves to its edge."""
        if name == "value":
            self.adopt()
            self.valueChanged.emit(value)
            return
        self.adopt()
        self.setValue(self.stored("value") or 0.0)

    def setValue(self, value: float) -> None:
        """Set the value, at the edge of the range where it lies outside."""
        self.store("value", float(min(max(value, self.stored("minimum")), self.stored("maximum"))))

    def setRange(self, low: float, high: float) -> None:
        """Set minimum and maximum."""
        self.__dict__.setdefault("_stored", {}).update(minimum=float(low), maximum=float(high))
        self.changed("minimum", low)

    def reset(self) -> None:
        """Go back to zero, or the edge nearest to it."""
        self.setValue(0.0)

    value = Property(float, lambda self: float(self.stored("value") or 0.0), setValue)


class PathLineEdit:
    """A line with a path and a button to browse, which the stand-in leaves idle."""

    DEFAULTS = {"showBrowseButton": True, "showHistoryButton": True, "nameFilters": ()}

    def __init__(self, *arguments: Any) -> None:
        QWidget.__init__(self, *(a for a in arguments if isinstance(a, QWidget)))
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.line = QtWidgets.QLineEdit(self)
        row.addWidget(self.line)
        row.addWidget(QtWidgets.QToolButton(self, text="…"))
        self.line.textChanged.connect(self.currentPathChanged)

    def setCurrentPath(self, path: str) -> None:
        """Set the path."""
        self.line.setText(path)

    def addCurrentPathToHistory(self) -> None:
        """Do nothing: there is no history."""

    def retrieveHistory(self) -> None:
        """Do nothing: there is no history."""

    currentPath = Property(str, lambda self: self.line.text(), setCurrentPath)


class DirectoryButton:
    """A button that shows a folder."""

    def changed(self, name: str, value: Any) -> None:
        """Show the folder, tell of it."""
        if name == "directory":
            self.setText(value)
            self.directoryChanged.emit(value)


class RangeWidget:
    """Two spin boxes: the lower and the upper value of a range."""

    DEFAULTS = {
        "minimum": 0.0,
        "maximum": 99.0,
        "minimumValue": 0.0,
        "maximumValue": 99.0,
        "singleStep": 1.0,
        "decimals": 2,
    }

    def __init__(self, parent: QWidget | None = None) -> None:
        QWidget.__init__(self, parent)
        row = QtWidgets.QHBoxLayout(self)
        self.spins = [QtWidgets.QDoubleSpinBox(self), QtWidgets.QDoubleSpinBox(self)]
        for spin, key in zip(self.spins, ("minimumValue", "maximumValue"), strict=True):
            row.addWidget(spin)
            spin.valueChanged.connect(lambda value, key=key: self.store(key, value))

    def changed(self, name: str, value: Any) -> None:
        """Show the values and tell of them."""
        for spin, key in zip(self.spins, ("minimumValue", "maximumValue"), strict=True):
            with QtCore.QSignalBlocker(spin):
                spin.setRange(self.stored("minimum"), self.stored("maximum"))
                spin.setValue(self.stored(key))
        if name in ("minimumValue", "maximumValue"):
            getattr(self, f"{name}Changed").emit(value)
            self.valuesChanged.emit(self.stored("minimumValue"), self.stored("maximumValue"))

    def setValues(self, low: float, high: float) -> None:
        """Set both values."""
        self.store("minimumValue", float(low))
        self.store("maximumValue", float(high))

    def setRange(self, low: float, high: float) -> None:
        """Set the limits of both values."""
        self.store("minimum", float(low))
        self.store("maximum", float(high))


class GroupBox:
    """A group box that folds: it is checkable, and folded while unchecked, so folding tells ``toggled``."""

    def __init__(self, *arguments: Any) -> None:
        QtWidgets.QGroupBox.__init__(self, *arguments)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self.fold)

    def fold(self, is_open: bool) -> None:
        """Show or hide the contents."""
        for child in self.findChildren(QWidget, options=Qt.FindChildOption.FindDirectChildrenOnly):
            child.setVisible(is_open)

    def event(self, event: Any) -> bool:
        """Keep hidden what is added to a folded box, or shown in it, as the real one does."""
        if event.type() in (QtCore.QEvent.Type.Show, QtCore.QEvent.Type.LayoutRequest) and not self.isChecked():
            self.fold(False)
        return bool(QtWidgets.QGroupBox.event(self, event))

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))


class CheckableComboBox:
    """A combo box whose items can be checked."""

    def _items(self) -> list:
        return [self.model().item(row) for row in range(self.count())]

    def checkedIndexes(self) -> list:
        """Return the indexes of the checked items."""
        return [item.index() for item in self._items() if item.checkState() == Qt.CheckState.Checked]

    def setCheckState(self, index: Any, state: Any) -> None:
        """Check or uncheck the item at a model index."""
        item = self.model().itemFromIndex(index)
        item.setCheckable(True)
        item.setCheckState(state)
        self.checkedIndexesChanged.emit()

    def allChecked(self) -> bool:
        """Say whether every item is checked."""
        return len(self.checkedIndexes()) == self.count()

    def noneChecked(self) -> bool:
        """Say whether no item is checked."""
        return not self.checkedIndexes()


def define_widgets() -> None:
    """Make and register the classes."""
    widgets = QtWidgets
    define("ctkCollapsibleButton", widgets.QAbstractButton, CollapsibleButton)
    define("ctkSliderWidget", QWidget, SliderWidget)
    define("ctkPathLineEdit", QWidget, PathLineEdit)
    define("ctkDirectoryButton", widgets.QPushButton, DirectoryButton)
    define("ctkRangeWidget", QWidget, RangeWidget)
    define("ctkCollapsibleGroupBox", widgets.QGroupBox, GroupBox)
    define("ctkCheckableComboBox", widgets.QComboBox, CheckableComboBox)
    for name, base in {
        "ctkComboBox": widgets.QComboBox,
        "ctkTreeComboBox": widgets.QComboBox,
        "ctkSearchBox": widgets.QLineEdit,
        "ctkMessageBox": widgets.QMessageBox,
        "ctkMenuButton": widgets.QPushButton,
        "ctkPushButton": widgets.QPushButton,
        "ctkColorPickerButton": widgets.QPushButton,
        "ctkExpandButton": widgets.QToolButton,
        "ctkFittedTextBrowser": widgets.QTextBrowser,
        "ctkCheckBox": widgets.QCheckBox,
        "ctkDoubleSpinBox": widgets.QDoubleSpinBox,
        "ctkDoubleSlider": QWidget,
        "ctkDoubleRangeSlider": QWidget,
    }.items():
        define(name, base)
