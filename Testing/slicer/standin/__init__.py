"""A stand-in for the 3D Slicer application: what the modules meet of it, on a real MRML scene and real Qt widgets.

The scene, its nodes and their logics are Slicer's own (slicer-core). The application around them is rebuilt: `qt`,
`ctk` and qMRML widgets on PySide6 with the attribute rules of PythonQt, `slicer.app`, `slicer.modules`, the scripted
module classes and the parameter node wrapper. What an attribute is (property, method, signal, absent) is read from
Testing/golden/slicer_api.json, how it behaves is pinned by Testing/golden/slicer_behaviour.json. Whatever the real
application has and the stand-in lacks raises NotImplementedError: a test cannot pass by silence.
"""
