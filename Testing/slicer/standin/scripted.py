"""slicer.ScriptedLoadableModule: the four base classes of a scripted module."""

from __future__ import annotations

import logging
import unittest
from pathlib import Path
from typing import Any

import slicer
import slicer.util


def resource_path(module: str, filename: str) -> str:
    """Return the absolute path of a file in a module's Resources."""
    return str(Path(slicer.util.modulePath(module)).parent / "Resources" / filename)


class ScriptedLoadableModule:
    """What the application lists of a module."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = self.__class__.__name__
        parent.title = ""
        parent.categories = []
        parent.dependencies = []
        parent.contributors = []
        parent.helpText = ""
        parent.acknowledgementText = ""
        parent.hidden = False
        slicer.selfTests[self.moduleName] = self.runTest

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """Return a link to the documentation."""
        return f'<p>For more information see the <a href="{docPage or self.moduleName}">online documentation</a>.</p>'

    def resourcePath(self, filename: str) -> str:
        """Return the absolute path of a file in the module's Resources."""
        return resource_path(self.moduleName, filename)

    def runTest(self, msec: int = 100, **keywords: Any) -> None:
        """Run the test class of the module's file."""
        module = slicer.modules.__dict__[self.moduleName.lower()]
        test = getattr(module.python_module, f"{self.moduleName}Test")()
        test.messageDelay = msec
        test.runTest(**keywords)


class ScriptedLoadableModuleWidget:
    """The panel: `self.parent` is its frame, `self.layout` the frame's layout."""

    def __init__(self, parent: Any = None) -> None:
        import qt

        name = self.__class__.__name__
        self.moduleName = name.removesuffix("Widget")
        self.developerMode = False
        if parent is None:
            self.parent = slicer.qMRMLWidget()
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        else:
            self.parent = parent
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()

    def resourcePath(self, filename: str) -> str:
        """Return the absolute path of a file in the module's Resources."""
        return resource_path(self.moduleName, filename)

    def setup(self) -> None:
        """Make the contents; derived classes call this first."""
        self.setupDeveloperSection()

    def setupDeveloperSection(self) -> None:
        """Do nothing: developer mode is off."""

    def cleanup(self) -> None:
        """Let go of everything when the panel is destroyed; derived classes override this."""

    def onReload(self) -> None:
        """Say that the stand-in does not reload modules."""
        raise NotImplementedError("the stand-in for Slicer does not reload modules")

    def onReloadAndTest(self, **keywords: Any) -> None:
        """Say that the stand-in does not reload modules."""
        self.onReload()

    def onTest(self, **keywords: Any) -> None:
        """Run the module's test."""
        slicer.selfTests[self.moduleName](**keywords)

    def onEditSource(self) -> None:
        """Do nothing: no editor is opened."""

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()


class ScriptedLoadableModuleLogic:
    """The logic: holds the module's parameter node, one for the scene unless told otherwise."""

    def __init__(self, parent: Any = None) -> None:
        self.mrmlScene = slicer.mrmlScene
        self.moduleName = self.__class__.__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        """Return the module's vtkMRMLScriptedModuleNode, made where there is none."""
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                return node
        else:
            nodes = self.getAllParameterNodes()
            if nodes:
                return nodes[0]
        return slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self) -> list[Any]:
        """Return all parameter nodes of the module."""
        every = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in every if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> Any:
        """Return a new parameter node, not yet in the scene."""
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A module's self test."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.messageDelay = 100

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Show a message for a moment."""
        slicer.util.delayDisplay(message, self.messageDelay)

    def takeScreenshot(self, name: str, description: str, type: int = -1) -> None:
        """Do nothing: there are no views."""
        logging.info("screenshot %s: %s", name, description)

    def runTest(self) -> None:
        """Run the default test; derived classes override this."""
        logging.info("no self test defined")
