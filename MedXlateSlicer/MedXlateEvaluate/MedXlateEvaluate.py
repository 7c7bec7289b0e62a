"""3D Slicer module MedXlateEvaluate: a synthetic image against its reference. Logic is in MedXlateSlicerLib."""

import sys
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Developer mode (module path added by hand): the libraries lie above this folder. Installed, they lie beside this file.
for _folder, _package in zip(Path(__file__).resolve().parents[1:3], ("MedXlateSlicerLib", "MedXlateCore"), strict=True):
    if (_folder / _package).is_dir() and str(_folder) not in sys.path:
        sys.path.append(str(_folder))


class MedXlateEvaluate(ScriptedLoadableModule):
    """What the application lists of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedXlate Evaluate")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        parent.dependencies = []
        parent.contributors = ["The MedXlate developers"]
        parent.helpText = _(
            "Compares a synthetic image with the acquired one: figures for the whole image, inside and outside a"
            " region, an error map and plots. Research use only, not for diagnosis."
        )
        parent.acknowledgementText = _("Figures follow named protocols; see the documentation.")


class MedXlateEvaluateWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel's life: set-up, scenes that come and go. What it shows and does is MedXlateSlicerLib.evaluate_panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._parameters = None
        self._guiTag = None

    def setup(self):
        """Load the .ui file and join it with the panel's logic."""
        ScriptedLoadableModuleWidget.setup(self)
        from MedXlateSlicerLib.evaluate_panel import EvaluatePanel

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedXlateEvaluate.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MedXlateEvaluateLogic()
        self.panel = EvaluatePanel(
            self.ui,
            slicer.mrmlScene,
            slicer.app.applicationLogic(),
            lambda text: slicer.app.clipboard().setText(text),
        )
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        for event in (scene.EndCloseEvent, scene.EndImportEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self.onSceneReady)
        self.initializeParameterNode()

    def cleanup(self):
        """The panel is taken down. May be called again."""
        self.panel = None
        self.setParameterNode(None)
        self.removeObservers()

    def onReload(self):
        """Read the library anew as well (developer mode); the base class does so with this file alone."""
        for name in [name for name in sys.modules if name.partition(".")[0] == "MedXlateSlicerLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self):
        """The module is shown."""
        self.initializeParameterNode()
        self.panel.enter()

    def onSceneStartClose(self, caller=None, event=None):
        """The scene is about to be closed."""
        self.panel.forget_scene()
        self.setParameterNode(None)

    def onSceneStartImport(self, caller=None, event=None):
        """A scene is about to be loaded: its nodes come one by one, so look away until all are there."""
        self.setParameterNode(None)

    def onSceneReady(self, caller=None, event=None):
        """The scene was emptied or loaded: show what it remembers."""
        self.initializeParameterNode()

    def initializeParameterNode(self):
        """Show the scene's parameters, made where there are none; in the midst of a change nothing is shown."""
        if self._parameters is None and not slicer.mrmlScene.IsBatchProcessing():
            self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameters):
        """Show these parameters from now on, None for none."""
        if self._parameters is not None:
            self._parameters.disconnectGui(self._guiTag)
            self.removeObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self._parameters = parameters
        if parameters is not None:
            self._guiTag = parameters.connectGui(self.ui)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        if self.panel is not None:
            self.panel.set_parameters(parameters)

    def onParametersModified(self, caller=None, event=None):
        """A choice has changed."""
        self.panel.refresh()


class MedXlateEvaluateLogic(ScriptedLoadableModuleLogic):
    """Comparison from scripts."""

    def getParameterNode(self):
        """Return the module's typed parameters."""
        from MedXlateSlicerLib.parameters import EvaluateParameters

        return EvaluateParameters(super().getParameterNode())

    def process(self, synthetic, reference, segmentation=None, uses=None, protocol="volume3d"):
        """Compare two volume nodes; returns a ``MedXlateSlicerLib.evaluation.Comparison``. Adds no node.

        Args:
            synthetic: the image under test.
            reference: the acquired image.
            segmentation: where the lesion is drawn, or None.
            uses: ``region``, ``core``, ``oedema`` or ``none`` by segment identifier; by names where it is left out.
            protocol: see ``MedXlateCore.metrics.protocols``.

        Raises MedXlateError where it cannot be done.
        """
        from MedXlateSlicerLib.evaluate_panel import compare

        return compare(slicer.mrmlScene, synthetic, reference, segmentation, uses, protocol)


class MedXlateEvaluateTest(ScriptedLoadableModuleTest):
    """Self test: an image against itself."""

    def setUp(self):
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run the self test."""
        self.setUp()
        self.test_an_image_equals_itself()

    def test_an_image_equals_itself(self):
        """The error of an image against itself is 0."""
        from MedXlateSlicerLib.sample_data import PHANTOM_SEEDS, load_phantom_case

        cache = Path(slicer.app.cachePath) / "MedXlate"
        nodes = load_phantom_case(slicer.mrmlScene, cache, PHANTOM_SEEDS[0], (3.0, 3.0, 6.0))
        comparison = MedXlateEvaluateLogic().process(nodes["T1ce"], nodes["T1ce"], nodes["region"])
        self.assertEqual(comparison.result.regions["brain"]["mae"], 0.0)
        self.delayDisplay("The self test has passed")
