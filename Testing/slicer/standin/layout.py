"""`slicer.app.layoutManager()` and its views: the layout number and the slice views' nodes are the scene's own."""

from __future__ import annotations

from typing import Any

from .scene import Scene
from .strict import Strict


class qMRMLSliceWidget(Strict):
    """One slice view without pixels: its node, its composite node and its logic are real."""

    _API = "qMRMLSliceWidget"

    def __init__(self, logic: Any) -> None:
        super().__init__()
        self._logic = logic

    def sliceLogic(self) -> Any:
        """Return the view's vtkMRMLSliceLogic."""
        return self._logic

    def mrmlSliceNode(self) -> Any:
        """Return the view's vtkMRMLSliceNode."""
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        """Return the node that names the layers of the view."""
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        """Zoom to the background volume."""
        self._logic.FitSliceToBackground()

    def mrmlScene(self) -> Any:
        """Return the scene."""
        return self._logic.GetMRMLScene()


class qSlicerLayoutManager(Strict):
    """The layout manager: `layout` is the number in the scene's layout node."""

    _API = "qMRMLLayoutManager"

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene
        self._widgets: dict[str, qMRMLSliceWidget] = {}

    @property
    def layout(self) -> int:
        """Return the number of the layout shown."""
        return self._scene.layout_logic.GetLayoutNode().GetViewArrangement()

    @layout.setter
    def layout(self, number: int) -> None:
        self.setLayout(number)

    def setLayout(self, number: int) -> None:
        """Show the layout of that number."""
        node = self._scene.layout_logic.GetLayoutNode()
        if node.GetViewArrangement() != number:
            node.SetViewArrangement(number)
            self._signals.emit("layoutChanged(int)", number)

    def layoutLogic(self) -> Any:
        """Return the vtkMRMLLayoutLogic."""
        return self._scene.layout_logic

    def mrmlScene(self) -> Any:
        """Return the scene."""
        return self._scene.scene

    def mrmlSliceLogics(self) -> Any:
        """Return the logics of all slice views, a vtkCollection."""
        return self._scene.application_logic.GetSliceLogics()

    def sliceViewNames(self) -> tuple[str, ...]:
        """Return the names of all slice views."""
        return tuple(self._scene.slice_logics)

    def sliceWidget(self, name: str) -> qMRMLSliceWidget | None:
        """Return the slice view of that name, None where there is none."""
        logic = self._scene.slice_logics.get(name)
        if logic is None:
            return None
        return self._widgets.setdefault(name, qMRMLSliceWidget(logic))

    def resetSliceViews(self) -> None:
        """Zoom all slice views to their background."""
        for logic in self._scene.slice_logics.values():
            logic.FitSliceToAll()

    @property
    def threeDViewCount(self) -> int:
        """Return the number of 3D views."""
        return self._count("vtkMRMLViewNode")

    @property
    def plotViewCount(self) -> int:
        """Return the number of plot views."""
        return self._count("vtkMRMLPlotViewNode")

    @property
    def tableViewCount(self) -> int:
        """Return the number of table views."""
        return self._count("vtkMRMLTableViewNode")

    def _count(self, name: str) -> int:
        return self._scene.scene.GetNumberOfNodesByClass(name)

    def setRenderPaused(self, pause: bool) -> None:
        """Do nothing: no view renders."""

    def pauseRender(self) -> None:
        """Do nothing: no view renders."""

    def resumeRender(self) -> None:
        """Do nothing: no view renders."""
