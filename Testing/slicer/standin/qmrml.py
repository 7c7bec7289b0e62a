"""qMRML widgets on a real scene: node selectors, checkable selectors, the segment editor's frame."""

from __future__ import annotations

import weakref
from typing import Any

import vtk
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Qt
from PySide6.QtWidgets import QWidget
from shiboken6 import Shiboken

from .ctkwidgets import CollapsibleButton, RangeWidget, SliderWidget
from .custom import define

NONE_ID = ""
OBSERVED: list[tuple[Any, int]] = []


class WithScene:
    """A widget with a scene, which tells when it changes."""

    def setMRMLScene(self, scene: Any) -> None:
        """Set the scene."""
        if scene is not self.__dict__.get("_scene"):
            self.__dict__["_scene"] = scene
            self.scene_changed(scene)
            if hasattr(self, "mrmlSceneChanged"):
                self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        """Return the scene."""
        return self.__dict__.get("_scene")

    def scene_changed(self, scene: Any) -> None:
        """Follow the new scene; nothing unless a class says so."""


def observe(subject: Any, event: int, widget: QWidget, method: str) -> None:
    """Call a method of the widget with the node of each event, for as long as the widget lives."""
    reference = weakref.ref(widget)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def on_event(caller: Any, event: str, node: Any = None) -> None:
        alive = reference()
        if alive is not None and Shiboken.isValid(alive):
            getattr(alive, method)(node)

    OBSERVED.append((subject, subject.AddObserver(event, on_event)))


def stop_observing() -> None:
    """End all observers of widgets: those of a widget that is being collected could no longer be called."""
    while OBSERVED:
        subject, tag = OBSERVED.pop()
        subject.RemoveObserver(tag)


class NodeComboBox(WithScene):
    """A selector of the scene's nodes of some types."""

    DEFAULTS = {
        "showChildNodeTypes": True,
        "addEnabled": True,
        "removeEnabled": True,
        "selectNodeUponCreation": True,
        "noneDisplay": "None",
    }

    def __init__(self, parent: QWidget | None = None) -> None:
        QWidget.__init__(self, parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.combo = QtWidgets.QComboBox(self)
        row.addWidget(self.combo)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self.attributes: list[tuple] = []
        self.labels: dict[str, str] = {}
        self.current = NONE_ID
        self.combo.currentIndexChanged.connect(lambda row: self.select(self.combo.itemData(row) or NONE_ID))

    def scene_changed(self, scene: Any) -> None:
        """List the nodes of the new scene and follow it."""
        if scene is not None:
            observe(scene, scene.NodeAddedEvent, self, "on_added")
            for event in (scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndBatchProcessEvent):
                observe(scene, event, self, "on_scene")
        self.refresh()

    def on_added(self, node: Any) -> None:
        """List a new node, and follow its name."""
        if self.fits(node):
            observe(node, vtk.vtkCommand.ModifiedEvent, self, "on_scene")
            self.nodeAdded.emit(node)
        self.on_scene()

    def on_scene(self, node: Any = None) -> None:
        """List the nodes again, unless the scene says that more is to come."""
        if self.mrmlScene() is not None and not self.mrmlScene().IsBatchProcessing():
            self.refresh()

    def changed(self, name: str, value: Any) -> None:
        """List the nodes again under a new rule."""
        self.refresh()

    def fits(self, node: Any) -> bool:
        """Say whether the node belongs in the list."""
        types = self.stored("nodeTypes")
        if self.stored("showChildNodeTypes"):
            known = any(node.IsA(name) for name in types)
        else:
            known = node.GetClassName() in types
        hidden = node.GetHideFromEditors() and not self.stored("showHidden")
        banned = any(node.IsA(name) for name in self.stored("hideChildNodeTypes"))
        return known and not hidden and not banned and all(self.has_attribute(node, *rule) for rule in self.attributes)

    @staticmethod
    def has_attribute(node: Any, kind: str, name: str, value: Any = None) -> bool:
        """Say whether a node of that type has the attribute, with the value where one is wanted."""
        if not node.IsA(kind):
            return True
        found = node.GetAttribute(name)
        return found is not None and (value is None or found == str(value))

    def nodes(self) -> list[Any]:
        """Return the nodes of the list, in the scene's order."""
        scene = self.mrmlScene()
        every = () if scene is None else (scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes()))
        return [node for node in every if self.fits(node)]

    def refresh(self) -> None:
        """Fill the list; the selected node stays, where it still is."""
        nodes = self.nodes()
        with QtCore.QSignalBlocker(self.combo):
            self.combo.clear()
            if self.stored("noneEnabled") or not nodes:
                self.combo.addItem(self.stored("noneDisplay"), NONE_ID)
            for node in nodes:
                self.combo.addItem(node.GetName() or "", node.GetID())
        kept = self.current if any(node.GetID() == self.current for node in nodes) else NONE_ID
        if not kept and nodes and not self.stored("noneEnabled"):
            kept = nodes[0].GetID()
        self.select(kept)

    def select(self, node_id: str) -> None:
        """Make the node of that ID the current one and tell of it."""
        with QtCore.QSignalBlocker(self.combo):
            self.combo.setCurrentIndex(self.combo.findData(node_id))
        if node_id == self.current:
            return
        self.current = node_id
        node = self.currentNode()
        self.currentNodeChanged[object].emit(node)
        self.currentNodeChanged[bool].emit(node is not None)
        self.currentNodeIDChanged.emit(node_id)

    def currentNode(self) -> Any:
        """Return the selected node, or None."""
        scene = self.mrmlScene()
        return scene.GetNodeByID(self.current) if scene is not None and self.current else None

    def setCurrentNode(self, node: Any) -> None:
        """Select a node; None, or one that is not in the list, selects none."""
        node_id = node if isinstance(node, str) else (node.GetID() if node is not None else NONE_ID)
        self.select(node_id if any(n.GetID() == node_id for n in self.nodes()) else NONE_ID)

    def setCurrentNodeID(self, node_id: str) -> None:
        """Select the node of that ID."""
        self.setCurrentNode(node_id)

    def setCurrentNodeIndex(self, index: int) -> None:
        """Select the node at that place in the list."""
        self.setCurrentNode(self.nodeFromIndex(index))

    def nodeCount(self) -> int:
        """Return the number of nodes in the list."""
        return len(self.nodes())

    def nodeFromIndex(self, index: int) -> Any:
        """Return the node at that place in the list."""
        nodes = self.nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def addAttribute(self, kind: str, name: str, value: Any = None) -> None:
        """List nodes of that type only where they have the attribute."""
        self.attributes.append((kind, name, value))
        self.refresh()

    def removeAttribute(self, kind: str, name: str) -> None:
        """Undo `addAttribute`."""
        self.attributes = [rule for rule in self.attributes if rule[:2] != (kind, name)]
        self.refresh()

    def addNode(self, kind: str | None = None) -> Any:
        """Make a node, as the menu's "Create new" does."""
        kind = kind or self.stored("nodeTypes")[0]
        name = self.stored("baseName") or kind.removeprefix("vtkMRML").removesuffix("Node")
        node = self.mrmlScene().AddNewNodeByClass(kind, self.mrmlScene().GenerateUniqueName(name))
        if self.stored("selectNodeUponCreation"):
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        """Remove the selected node from the scene."""
        if self.currentNode() is not None:
            self.mrmlScene().RemoveNode(self.currentNode())

    def setNodeTypeLabel(self, label: str, kind: str) -> None:
        """Name a node type in the menu."""
        self.labels[kind] = label

    def nodeTypeLabel(self, kind: str) -> str:
        """Return the name of a node type in the menu."""
        return self.labels.get(kind, "")

    currentNodeID = Property(str, lambda self: self.current, setCurrentNodeID)
    currentNodeId = Property(str, lambda self: self.current, setCurrentNodeID)


class ColorTableComboBox(NodeComboBox):
    """A selector of colour nodes."""

    DEFAULTS = NodeComboBox.DEFAULTS | {"nodeTypes": ("vtkMRMLColorTableNode",), "showHidden": True}


class CheckableNodeComboBox(NodeComboBox):
    """A selector in which nodes are checked."""

    def __init__(self, parent: QWidget | None = None) -> None:
        NodeComboBox.__init__(self, parent)
        self.checked: set[str] = set()

    def checkedNodes(self) -> list[Any]:
        """Return the checked nodes."""
        return [node for node in self.nodes() if node.GetID() in self.checked]

    def uncheckedNodes(self) -> list[Any]:
        """Return the others."""
        return [node for node in self.nodes() if node.GetID() not in self.checked]

    def allChecked(self) -> bool:
        """Say whether every node is checked."""
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:
        """Say whether no node is checked."""
        return not self.checkedNodes()

    def check(self, node: Any) -> None:
        """Check a node."""
        self.setCheckState(node, Qt.CheckState.Checked)

    def uncheck(self, node: Any) -> None:
        """Uncheck a node."""
        self.setCheckState(node, Qt.CheckState.Unchecked)

    def checkState(self, node: Any) -> Qt.CheckState:
        """Return whether the node is checked."""
        return Qt.CheckState.Checked if node.GetID() in self.checked else Qt.CheckState.Unchecked

    def setCheckState(self, node: Any, state: Qt.CheckState) -> None:
        """Check or uncheck a node and tell of it."""
        before = set(self.checked)
        (self.checked.add if Qt.CheckState(state) == Qt.CheckState.Checked else self.checked.discard)(node.GetID())
        if self.checked != before:
            self.checkedNodesChanged.emit()


class MRMLWidget(WithScene):
    """The frame of a module's panel."""


class SceneSlider(WithScene, SliderWidget):
    """A slider with units from the scene, which the stand-in leaves out."""


class SceneRange(WithScene, RangeWidget):
    """A range with units from the scene, which the stand-in leaves out."""


class SceneCollapsible(WithScene, CollapsibleButton):
    """A collapsible button with a scene."""


def body(*parts: type) -> type:
    """Return one class with the members of all, the later ones winning."""
    members: dict[str, Any] = {}
    for part in parts:
        for base in reversed(part.__mro__[:-1]):
            members |= {k: v for k, v in vars(base).items() if k not in ("__dict__", "__weakref__", "__module__")}
    return type(parts[-1].__name__, (), members)


def define_nodes() -> None:
    """Make and register the classes."""
    define("qMRMLWidget", QWidget, body(MRMLWidget))
    define("qMRMLNodeComboBox", QWidget, body(NodeComboBox))
    define("qMRMLColorTableComboBox", QWidget, body(ColorTableComboBox))
    define("qMRMLCollapsibleButton", QtWidgets.QAbstractButton, body(SceneCollapsible))
    define("qMRMLSliderWidget", QWidget, body(SceneSlider))
    define("qMRMLRangeWidget", QWidget, body(SceneRange))
    define("qMRMLSpinBox", QtWidgets.QDoubleSpinBox, body(WithScene))
