"""slicer.parameterNodeWrapper: typed fields on a vtkMRMLScriptedModuleNode, and their widgets."""

from __future__ import annotations

import typing
from types import ModuleType
from typing import Any

import slicer.util
import vtk

from . import serializers, validators
from .connectors import Connector, createGuiConnector
from .qmrml import OBSERVED
from .serializers import Serializer, serializer_for
from .validators import Default, findFirstAnnotation, splitAnnotations, unannotatedType

PROPERTY = "SlicerParameterName"


class Parameter:
    """One typed field of the class."""

    def __init__(self, owner: type, name: str, annotated: Any) -> None:
        self.basename, self.unalteredType = name, annotated
        self.serializer: Serializer = serializer_for(annotated)
        given = findFirstAnnotation(splitAnnotations(annotated)[1], Default)
        if name in vars(owner):
            given = Default(vars(owner)[name])
        self.default = given or Default(self.serializer.default())

    def read(self, node: Any, name: str) -> Any:
        """Return the value, the default where none was set yet."""
        if not self.serializer.isIn(node, name):
            self.serializer.write(node, name, self.default.value)
        return self.serializer.read(node, name)


class Pack(Serializer):
    """Keeps a parameter pack: its members under dotted names."""

    def __init__(self, kind: type) -> None:
        super().__init__(kind)

    def isIn(self, node: Any, name: str) -> bool:
        """Say whether every member is there."""
        return all(p.serializer.isIn(node, f"{name}.{p.basename}") for p in self.kind.allParameters.values())

    def write(self, node: Any, name: str, value: Any) -> None:
        """Keep every member."""
        if not isinstance(value, self.kind):
            raise TypeError(f"Value must be of type '{self.kind}', is type '{type(value)}' value '{value}'")
        with slicer.util.NodeModify(node):
            for key, parameter in self.kind.allParameters.items():
                parameter.serializer.write(node, f"{name}.{key}", getattr(value, key))

    def read(self, node: Any, name: str) -> Any:
        """Return the pack; setting a member of it writes to the node."""
        pack = self.kind.__new__(self.kind)
        pack._values = {key: p.read(node, f"{name}.{key}") for key, p in self.kind.allParameters.items()}
        pack._save = lambda key, value: self.kind.allParameters[key].serializer.write(node, f"{name}.{key}", value)
        return pack

    def remove(self, node: Any, name: str) -> None:
        """Forget every member."""
        for key, parameter in self.kind.allParameters.items():
            parameter.serializer.remove(node, f"{name}.{key}")


def fields(cls: type) -> dict[str, Parameter]:
    """Return the typed fields of a class."""
    return {name: Parameter(cls, name, kind) for name, kind in typing.get_type_hints(cls, include_extras=True).items()}


def parameterPack(classtype: Any = None) -> Any:
    """Make a class of several typed members that are one parameter."""

    def make(cls: type) -> type:
        cls.allParameters = fields(cls)
        for name in cls.allParameters:
            setattr(cls, name, _pack_member(name))
        cls.__init__ = _pack_init
        cls.__eq__ = lambda self, other: isinstance(other, cls) and self._values == other._values
        cls.getValue = lambda self, name: _descend(self, name)[0]
        cls.setValue = _set_nested
        cls.dataType = staticmethod(lambda name: _data_type(cls, name))
        cls._pack_serializer = classmethod(Pack)
        cls._is_parameterPack = True
        return cls

    return make if classtype is None else make(classtype)


def _pack_member(name: str) -> property:
    def write(self: Any, value: Any) -> None:
        self.allParameters[name].serializer.validate(value)
        self._values[name] = value
        if self._save is not None:
            self._save(name, value)

    return property(lambda self: self._values[name], write)


def _pack_init(self: Any, *arguments: Any, **keywords: Any) -> None:
    self._save = None
    self._values = {name: parameter.default.value for name, parameter in self.allParameters.items()}
    given = dict(zip(self.allParameters, arguments, strict=False)) | keywords
    for name, value in given.items():
        if name not in self.allParameters:
            raise TypeError(f"{type(self).__name__} has no member {name!r}")
        setattr(self, name, value)


def _descend(owner: Any, dotted: str) -> tuple[Any, Any, str]:
    """Return value, holder and last name of a dotted name."""
    holder = None
    for name in dotted.split("."):
        if name not in getattr(owner, "allParameters", {}):
            raise ValueError(f"Cannot find a param with the given name: {dotted}")
        holder, owner = owner, getattr(owner, name)
    return owner, holder, name


def _set_nested(owner: Any, dotted: str, value: Any) -> None:
    _, holder, name = _descend(owner, dotted)
    setattr(holder, name, value)


def _data_type(cls: type, dotted: str) -> Any:
    first, _, rest = dotted.partition(".")
    if first not in cls.allParameters:
        raise ValueError(f"Cannot find a param with the given name: {dotted}")
    kind = cls.allParameters[first].unalteredType
    return _data_type(unannotatedType(kind), rest) if rest else kind


class Wrapper:
    """What the decorated class gets; the names are Slicer's."""

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._prefix = prefix or ""
        self._guis: dict[int, tuple[dict[str, Connector], int]] = {}
        self._next_tag, self._updating = 0, False
        for name, parameter in self.allParameters.items():
            parameter.read(parameterNode, self._prefix + name)

    def default(self, paramName: str) -> Default:
        """Return the default of a parameter."""
        self._check(paramName)
        return self.allParameters[paramName].default

    def isCached(self, paramName: str) -> bool:
        """Say whether reads of the parameter are cached: all are but packs."""
        self._check(paramName)
        return not isinstance(self.allParameters[paramName].serializer, Pack)

    def _check(self, name: str) -> None:
        _data_type(type(self), name)

    def getValue(self, name: str) -> Any:
        """Return the value of a parameter; a dotted name reaches into a pack."""
        return _descend(self, name)[0]

    def setValue(self, name: str, value: Any) -> None:
        """Set a parameter; a dotted name reaches into a pack."""
        self._check(name)
        _set_nested(self, name, value)

    def StartModify(self) -> Any:
        """Hold back the node's events."""
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: Any) -> Any:
        """Send the node's event."""
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        """Observe the node."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        """Stop observing the node."""
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        """Tell the node's observers."""
        self.parameterNode.Modified()

    def connectGui(self, gui: Any) -> int:
        """Connect all widgets that have the property SlicerParameterName; return a tag for disconnectGui."""
        widgets = gui.findChildren("QWidget") if hasattr(gui, "isWidgetType") else list(vars(gui).values())
        names = {widget.property(PROPERTY): widget for widget in widgets if widget.property(PROPERTY)}
        return self.connectParametersToGui(names)

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Connect widgets or connectors by parameter name; return a tag for disconnectGui."""
        for name in mapping:
            self._check(name)
        connectors = {
            name: widget if isinstance(widget, Connector) else createGuiConnector(widget, self.dataType(name))
            for name, widget in mapping.items()
        }
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(lambda name=name, connector=connector: self._from_gui(name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._to_gui())
        OBSERVED.append((self.parameterNode, observer))
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        self._guis[tag] = (connectors, observer)
        return tag

    def disconnectGui(self, guiTag: int) -> None:
        """Undo connectGui."""
        if guiTag in self._guis:
            connectors, observer = self._guis.pop(guiTag)
            self.RemoveObserver(observer)
            for connector in connectors.values():
                connector.onChanged(None)

    def _from_gui(self, name: str, connector: Connector) -> None:
        if not self._updating:
            self.setValue(name, connector.read())

    def _to_gui(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors, _ in list(self._guis.values()):
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False


def _field(name: str, parameter: Parameter) -> property:
    def write(self: Any, value: Any) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            parameter.serializer.write(self.parameterNode, self._prefix + name, value)

    return property(lambda self: parameter.read(self.parameterNode, self._prefix + name), write)


def parameterNodeWrapper(classtype: Any = None) -> Any:
    """Give a class typed fields that are kept in a parameter node."""

    def make(cls: type) -> type:
        cls.allParameters = fields(cls)
        for name, parameter in cls.allParameters.items():
            if name in vars(Wrapper):
                raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
            setattr(cls, name, _field(name, parameter))
        for name, member in vars(Wrapper).items():
            if name == "__init__" or not name.startswith("__"):
                setattr(cls, name, member)
        cls.dataType = staticmethod(lambda name: _data_type(cls, name))
        cls._is_parameter_node_wrapper = True
        return cls

    return make if classtype is None else make(classtype)


def isParameterNodeWrapper(classOrObj: Any) -> bool:
    """Say whether the class was decorated."""
    return getattr(classOrObj, "_is_parameter_node_wrapper", False)


def isParameterPack(obj: Any) -> bool:
    """Say whether the class is a pack."""
    return getattr(obj, "_is_parameterPack", False)


def findChildWidgetForParameter(widget: Any, parameter: str) -> Any:
    """Return the child that shows the parameter, or None."""
    return next((child for child in widget.findChildren("QWidget") if child.property(PROPERTY) == parameter), None)


def module() -> ModuleType:
    """Return slicer.parameterNodeWrapper."""
    made = ModuleType("slicer.parameterNodeWrapper")
    here = (parameterNodeWrapper, parameterPack, isParameterNodeWrapper, isParameterPack, findChildWidgetForParameter)
    for member in (*here, createGuiConnector, splitAnnotations, unannotatedType, findFirstAnnotation):
        setattr(made, member.__name__, member)
    for name in [
        "Validator",
        "NotNone",
        "IsInstance",
        "WithinRange",
        "Minimum",
        "Maximum",
        "Choice",
        "Exclude",
        "Default",
        "Decimals",
        "SingleStep",
        "Label",
    ]:
        setattr(made, name, getattr(validators, name))
    made.Serializer, made.ListSerializer = serializers.Serializer, serializers.ListSerializer
    return made
