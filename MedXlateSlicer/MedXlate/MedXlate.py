"""3D Slicer module MedXlate: makes a missing sequence from those at hand. Logic is in MedXlateSlicerLib."""

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


class MedXlate(ScriptedLoadableModule):
    """What the application lists of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedXlate")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        parent.dependencies = []
        parent.contributors = ["The MedXlate developers"]
        parent.helpText = _(
            "Makes a missing image, such as T1 with contrast agent, from those at hand, guided by a region that you"
            " draw. Research use only, not for diagnosis."
        )
        parent.acknowledgementText = _(
            "The method TLP is described in arXiv 2503.01265; it was written anew from the paper."
        )
        slicer.app.connect("startupCompleted()", onStartup)


def onStartup():
    """The application is ready: make sample data and the layout known."""
    from MedXlateSlicerLib.placement import register_layout

    registerSampleData()
    register_layout(slicer.mrmlScene)


def registerSampleData():
    """Offer phantoms and public patients in Sample Data; nothing is made or fetched before they are chosen."""
    import SampleData
    from MedXlateSlicerLib.sample_data import register_sample_data

    def load(seed):
        from MedXlateSlicerLib.sample_data import load_phantom_case

        with slicer.util.tryWithErrorDisplay(_("The phantom could not be made."), waitCursor=True):
            nodes = load_phantom_case(slicer.mrmlScene, Path(slicer.app.cachePath) / "MedXlate", seed)
        slicer.util.setSliceViewerLayers(background=nodes["T1"], fit=True)  # as after any other file that is loaded
        return list(nodes.values())

    icons = Path(__file__).resolve().parent / "Resources" / "Icons"
    register_sample_data(SampleData.SampleDataLogic, load, icons)


class MedXlateWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel's life: set-up, scenes that come and go. What it shows and does is MedXlateSlicerLib.panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._parameters = None
        self._guiTag = None
        self._segmentation = None

    def setup(self):
        """Load the .ui file and join it with the panel's logic."""
        ScriptedLoadableModuleWidget.setup(self)
        from MedXlateSlicerLib.panel import Panel

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedXlate.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MedXlateLogic()
        self.panel = Panel(
            self.ui,
            slicer.mrmlScene,
            self.logic.makeRunner,
            self.logic.prepare,
            slicer.app.userSettings(),
            lambda text: slicer.app.clipboard().setText(text),
        )
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        for event in (scene.EndCloseEvent, scene.EndImportEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self.onSceneReady)
        self.initializeParameterNode()

    def cleanup(self):
        """The panel is taken down: end the worker, let go of everything. May be called again."""
        panel, self.panel = self.panel, None
        if panel is not None:
            panel.close()
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

    def exit(self):
        """Another module is shown; a run goes on."""
        if self.panel is not None:
            self.panel.leave()

    def onSceneStartClose(self, caller=None, event=None):
        """The scene is about to be closed: stop a run, let go of its nodes."""
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
        self.followSegmentation()
        if self.panel is not None:
            self.panel.set_parameters(parameters)

    def onParametersModified(self, caller=None, event=None):
        """A choice has changed."""
        self.followSegmentation()
        self.panel.refresh()

    def followSegmentation(self):
        """Hear of segments that come, go or change their name."""
        node = self._parameters.segmentation if self._parameters is not None else None
        segmentation = node.GetSegmentation() if node is not None else None
        if segmentation is self._segmentation:
            return
        events = (
            slicer.vtkSegmentation.SegmentAdded,
            slicer.vtkSegmentation.SegmentRemoved,
            slicer.vtkSegmentation.SegmentModified,
            slicer.vtkSegmentation.SourceRepresentationModified,
        )
        for event in events:
            if self._segmentation is not None:
                self.removeObserver(self._segmentation, event, self.onSegmentsChanged)
            if segmentation is not None:
                self.addObserver(segmentation, event, self.onSegmentsChanged)
        self._segmentation = segmentation

    def onSegmentsChanged(self, caller=None, event=None):
        """The segmentation's segments have changed."""
        self.panel.refresh()


class MedXlateLogic(ScriptedLoadableModuleLogic):
    """Translation from scripts, and what the panel needs of the application."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self, parent)
        self._prepared = set()

    def getParameterNode(self):
        """Return the module's typed parameters."""
        from MedXlateSlicerLib.parameters import TranslateParameters

        return TranslateParameters(super().getParameterNode())

    def makeRunner(self, place):
        """Return the driver of runs in a ``worker`` or in the ``panel``."""
        from MedXlateSlicerLib.runner import make_runner

        return make_runner(place)

    def prepare(self, place="panel"):
        """Make sure, once a session, that what a run in ``worker`` or ``panel`` needs is installed, asking first.

        Raises MedXlateError where it is not.
        """
        from MedXlateSlicerLib.install import NEEDED_TO_TRANSLATE, ensure

        if place not in self._prepared:
            requirements = Path(__file__).resolve().parent / "Resources" / "requirements.txt"
            ensure(requirements, needed=NEEDED_TO_TRANSLATE, load_here=place == "panel")
            self._prepared.add(place)

    def process(
        self,
        sources,
        target="",
        model="",
        segmentation=None,
        uses=None,
        device="auto",
        samples=1,
        seed=0,
        target_text="",
    ):
        """Make a synthetic volume without a panel, inside this process, and return its node.

        Args:
            sources: volume nodes by role, such as ``{"T1": node, "T2": node}``.
            target: the modality to make, such as ``T1ce``.
            model: a model's name; empty for the one that fits best.
            segmentation: where a region is drawn, or None.
            uses: ``region``, ``core``, ``oedema`` or ``none`` by segment identifier; by names where it is left out.
            device: ``auto``, ``cpu``, ``cuda`` ...
            samples, seed: of a model that draws samples: how many are averaged, and where their noise starts. From two
                on, their standard deviation is added under the result in the subject hierarchy.
            target_text: the target in words in place of ``target``, for models that can be told, such as
                ``T1 brain after gadolinium``.

        Raises MedXlateError where it cannot be done.
        """
        from MedXlateSlicerLib.script import translate_nodes

        from MedXlateCore.models.sampling import Sampling

        return translate_nodes(
            slicer.mrmlScene,
            self.makeRunner("panel"),
            slicer.app.userSettings(),
            sources,
            target,
            target_text=target_text,
            model=model,
            segmentation=segmentation,
            uses=uses,
            device=device,
            sampling=Sampling(samples=samples, seed=seed),
            uncertainty=samples > 1,
        )


class MedXlateTest(ScriptedLoadableModuleTest):
    """Self test: a phantom patient is translated."""

    def setUp(self):
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run the self test."""
        self.setUp()
        self.test_a_phantom_is_translated()

    def test_a_phantom_is_translated(self):
        """T1 and T2 of a phantom become a T1ce on the same grid, marked as synthetic."""
        from MedXlateSlicerLib.sample_data import PHANTOM_SEEDS, load_phantom_case

        cache = Path(slicer.app.cachePath) / "MedXlate"
        nodes = load_phantom_case(slicer.mrmlScene, cache, PHANTOM_SEEDS[0], (3.0, 3.0, 6.0))
        sources = {role: nodes[role] for role in ("T1", "T2")}
        result = MedXlateLogic().process(sources, "T1ce", segmentation=nodes["region"], device="cpu")
        self.assertEqual(result.GetImageData().GetDimensions(), nodes["T1"].GetImageData().GetDimensions())
        self.assertEqual(result.GetAttribute("MedXlate.synthetic"), "1")
        self.delayDisplay("The self test has passed")
