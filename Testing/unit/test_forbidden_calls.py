"""What no file of the package may do: run code or shells from data, unpickle, unpack archives. Read from the syntax."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "MedXlateCore"
IMPORTER = "models/importer.py"

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle", "pty"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "extractall", "unpack_archive", "read_pickle", "torch.load", "torch.hub.load", "torch.jit.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "runpy.run_path", "runpy.run_module",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
}  # fmt: skip
PREFIXES = ("os.exec", "os.spawn")

# The importer opens authors' checkpoints with PyTorch's restricted loader, and has to know that loader's refusal by
# its class. Nothing else of ``pickle``, no other module, and no loading without the restriction.
ALLOWED = {(IMPORTER, "import of pickle.UnpicklingError"), (IMPORTER, "call of torch.load with weights_only=True")}


def findings(source: str) -> list[str]:
    """Return what is forbidden in a source text, each with its line, such as ``3: call of eval``."""
    tree = ast.parse(source)
    names = _imported(tree)
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [(node.lineno, f"import of {name}") for name in _modules(node) if name.split(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            found += [(node.lineno, text) for text in _forbidden_call(node, names)]
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            found += [(node.lineno, f"mention of {n}") for n in [_full_name(node, names)] if _is_forbidden(n)]
    called = {(line, text.split()[2]) for line, text in found if text.startswith("call")}
    kept = [(n, t) for n, t in found if not (t.startswith("mention") and (n, t.split()[2]) in called)]
    return [f"{line}: {text}" for line, text in sorted(set(kept))]


def _imported(tree: ast.AST) -> dict[str, str]:
    """Return what the names that imports bind stand for, so that ``import os as o`` hides nothing."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names] if node.module and not node.level else []


def _full_name(node: ast.AST, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id).removeprefix("builtins.")
    if isinstance(node, ast.Attribute):
        return f"{_full_name(node.value, names)}.{node.attr}".removeprefix("builtins.")
    return "?"


def _is_forbidden(name: str) -> bool:
    tail = name.rpartition(".")[2]
    return name in BUILTINS or name in METHODS or tail in METHODS or name.startswith(PREFIXES)


def _forbidden_call(node: ast.Call, names: dict[str, str]) -> list[str]:
    name = _full_name(node.func, names)
    keywords = {k.arg: k.value for k in node.keywords}
    found = []
    if _is_forbidden(name):
        plain = name == "torch.load" and _is_true(keywords.get("weights_only"))
        found.append(f"call of {name}" + (" with weights_only=True" if plain else ""))
    if "shell" in keywords and not _is_false(keywords["shell"]):
        found.append(f"call of {name} with shell")
    if "allow_pickle" in keywords and not _is_false(keywords["allow_pickle"]):
        found.append(f"call of {name} with allow_pickle")
    return found


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_package_runs_no_data_and_unpickles_nothing(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    found = [text for text in findings(path.read_text("utf-8")) if (name, text.split(": ", 1)[1]) not in ALLOWED]
    assert found == []


def test_the_exceptions_are_used_and_stand_once_each() -> None:
    """An exception that nobody needs any more must go."""
    texts = [text.split(": ", 1)[1] for text in findings((ROOT / IMPORTER).read_text("utf-8"))]
    assert sorted(texts) == sorted(text for _, text in ALLOWED)


BAD = {
    "import pickle": "import of pickle",
    "import os, pickle as p": "import of pickle",
    "from pickle import loads": "import of pickle.loads",
    "from _pickle import Unpickler": "import of _pickle.Unpickler",
    "import cPickle": "import of cPickle",
    "import dill": "import of dill",
    "from joblib import load": "import of joblib.load",
    "import shelve": "import of shelve",
    "import marshal": "import of marshal",
    "def f():\n    import pickle.whatever": "import of pickle.whatever",
    "eval('1')": "call of eval",
    "import builtins\nbuiltins.eval('1')": "call of eval",
    "from builtins import eval as e\ne('1')": "call of eval",
    "f = eval": "mention of eval",
    "map(exec, texts)": "mention of exec",
    "exec(text)": "call of exec",
    "exec(compile(text, 'name', 'exec'))": "call of compile",
    "__import__(name)": "call of __import__",
    "archive.extractall(folder)": "call of archive.extractall",
    "open_archive().extractall()": "call of ?.extractall",
    "import shutil\nshutil.unpack_archive(a, b)": "call of shutil.unpack_archive",
    "import os\nos.system('ls')": "call of os.system",
    "import os as o\no.system('ls')": "call of os.system",
    "from os import system\nsystem('ls')": "call of os.system",
    "import os\nos.execv('/bin/sh', [])": "call of os.execv",
    "import os\nos.popen('ls')": "call of os.popen",
    "import subprocess\nsubprocess.run('ls', shell=True)": "call of subprocess.run with shell",
    "import subprocess\nsubprocess.run('ls', shell=wish)": "call of subprocess.run with shell",
    "import yaml\nyaml.load(text)": "call of yaml.load",
    "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)": "call of yaml.load",
    "import torch\ntorch.load(path)": "call of torch.load",
    "import torch\ntorch.load(path, weights_only=False)": "call of torch.load",
    "import torch\ntorch.load(path, weights_only=careful)": "call of torch.load",
    "from torch import load\nload(path)": "call of torch.load",
    "import torch\nloader = torch.load": "mention of torch.load",
    "import torch\ntorch.hub.load('a', 'b')": "call of torch.hub.load",
    "import numpy as np\nnp.load(path, allow_pickle=True)": "call of numpy.load with allow_pickle",
}


@pytest.mark.parametrize("source", BAD)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert BAD[source] in [text.split(": ", 1)[1] for text in findings(source)]


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "import re\nre.compile('a')",
        "import safetensors.torch\nsafetensors.torch.load(data)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "import json\njson.load(stream)",
        "from .pickled import thing",
        "text = 'eval(1)'  # exec(2)",
    ],
)
def test_what_is_harmless_is_let_through(source: str) -> None:
    assert findings(source) == []


@pytest.mark.parametrize(
    "source", ["from pickle import loads", "import pickle", "import torch\ntorch.load(path)", "eval('1')"]
)
def test_the_exceptions_cover_nothing_else_in_the_importer(source: str) -> None:
    assert not {(IMPORTER, text.split(": ", 1)[1]) for text in findings(source)} & ALLOWED
