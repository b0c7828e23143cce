"""Imports go in one direction, at the top of a file and in functions, and have no cycles."""

import ast
from graphlib import TopologicalSorter

from helpers import ROOT

# Each package and those that it may import: the ones below it (CONTRIBUTING.md, "The map").
AUDIO = {"core", "audio"}
DATA = AUDIO | {"models", "data"}
DETECTION = DATA | {"embeddings", "detection"}
EVALUATION = DETECTION | {"evaluation"}
BELOW = {
    "core": set(),
    "audio": AUDIO,
    "models": AUDIO,
    "data": AUDIO,
    "embeddings": DATA,
    "detection": DETECTION,
    "evaluation": EVALUATION,
    "finetuning": EVALUATION,
    "reports": EVALUATION,
    "training": EVALUATION | {"reports"},
    "api": DETECTION,
    "live": DETECTION,
    "__main__": {"core"},
}
EVERYTHING = {*BELOW, "scripts", "tools"}
PARTS = ("danger_safe", "models", "tools")


def _modules():
    """Return {dotted name: (lines, syntax tree)} of all modules, without tests, benchmarks and fuzz."""
    files = [*ROOT.glob("*.py"), *(file for part in PARTS for file in (ROOT / part).rglob("*.py"))]
    texts = {".".join(file.relative_to(ROOT).with_suffix("").parts): file.read_text("utf-8") for file in files}
    return {name.removesuffix(".__init__"): (text.splitlines(), ast.parse(text)) for name, text in texts.items()}


MODULES = _modules()


def _imports(name):
    """Yield (line, imported module of this project) for every import in a module."""
    for node in ast.walk(MODULES[name][1]):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}, line {node.lineno}: relative imports are not seen here"
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [whole if whole in MODULES else node.module for whole in named]
        else:
            continue
        yield from ((node.lineno, other) for other in named if other.partition(".")[0] in {*PARTS, *MODULES})


def _floor(name):
    """Return the package of a module."""
    part, _, rest = name.partition(".")
    if part == "danger_safe":
        return rest.partition(".")[0] or "core"
    return part if part in PARTS else "scripts"


def test_imports_go_in_one_direction():
    wrong = [
        f"{name}, line {line}: imports {other}"
        for name in MODULES
        for line, other in _imports(name)
        if _floor(other) not in BELOW.get(_floor(name), EVERYTHING - {"scripts"}) | {_floor(name)}
        or (_floor(other) == "tools" != _floor(name))
    ]
    assert not wrong
    assert {_floor(name) for name in MODULES} == EVERYTHING  # add a new package to BELOW


def test_there_are_no_import_cycles():
    """Imports in functions and for type checkers count. A CycleError names the cycle."""
    TopologicalSorter({name: {other for _, other in _imports(name)} for name in MODULES}).prepare()


def test_imports_in_functions_have_a_reason():
    """Imports of this project's modules, mostly for start-up time: the reason is a comment on or above the lines."""
    silent, hidden = [], []
    for name, (lines, tree) in MODULES.items():
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        inside = {node.lineno for function in functions for node in ast.walk(function)
                  if isinstance(node, (ast.Import, ast.ImportFrom))}  # fmt: skip
        for line, other in _imports(name):
            if line not in inside:
                continue
            first = last = line
            while first - 1 in inside or not lines[first - 2].strip():
                first -= 1
            while last + 1 in inside:
                last += 1
            if not any("#" in text for text in lines[first - 2 : last]):
                silent.append(f"{name}, line {line}: imports {other}")
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                lines_of = range(node.lineno, node.end_lineno + 1)
                hidden += [f"{name}, line {line}: {other}" for line, other in _imports(name) if line in lines_of]
    assert not silent
    assert not hidden  # hidden from all but the type checker
