"""What the documentation says about arguments is what the signature says, and its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import recorders
import trajtools

ROOT = Path(__file__).parent.parent
FILES = sorted(p for package in ("trajtools", "recorders") for p in (ROOT / package).rglob("*.py"))
OPTIONAL = ("torch", "jax", "optax", "lightning", "transformers", "huggingface", "matplotlib")
OPEN_MODULES = {f"trajtools.{m}" for m in ("embedding", "errors", "networks", "results")}
OPEN_MODULES |= {f"trajtools.{m}" for m in ("plots", "systems")}
EXPORTED = {*trajtools._HOME, *recorders.__all__, "Parameter", "NodeSet", "Member", "fit_slope", "Fit"}
for _module in trajtools._MODULES:  # what a package offers stands in its `__init__`, as `name as name`
    _init = ROOT / "trajtools" / _module / "__init__.py"
    for _node in ast.parse(_init.read_text()).body if _init.exists() else []:
        if isinstance(_node, ast.ImportFrom):
            EXPORTED |= {alias.name for alias in _node.names if alias.asname == alias.name}
for _file in ("torch/__init__.py", "jax/__init__.py", "iris.py"):
    for _node in ast.parse((ROOT / "recorders" / _file).read_text()).body:  # a framework may be missing
        if isinstance(_node, ast.Assign) and ast.unparse(_node.targets[0]) == "__all__":
            EXPORTED |= set(ast.literal_eval(_node.value))
EXPORTED |= {"Sharpness", "Trace", "BatchSharpness", "SpectralDensity", "TangentExponents", "Edge", "CurvatureState"}
EXPORTED |= {"HessianProbes"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def decorators(node: Function | ast.ClassDef) -> str:
    return " ".join(ast.unparse(d) for d in node.decorator_list)


def arguments(function: Function) -> list[str]:
    a = function.args
    named = [arg.arg for arg in (*a.posonlyargs, *a.args)]
    stars = [f"*{a.vararg.arg}"] if a.vararg else []
    rest = [f"**{a.kwarg.arg}"] if a.kwarg else []
    return [n for n in (*named, *stars, *(arg.arg for arg in a.kwonlyargs), *rest) if n not in ("self", "cls")]


def section(docstring: str, title: str) -> list[str] | None:
    """Names in a numpydoc section, ``a, b : int`` counting as two; None where there is no such section."""
    found = re.search(rf"^{title}\n-{{3,}}\n(.*?)(?=^\w[^\n]*\n-{{3,}}$|\Z)", docstring, re.MULTILINE | re.DOTALL)
    if found is None:
        return None
    heads = [line.split(" :")[0] for line in found[1].splitlines() if line and not line.startswith(" ")]
    return [name.strip().replace("\\", "") for head in heads for name in head.split(",")]


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


def problems(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    if not ast.get_docstring(tree):
        yield "the module has no docstring"
    for name, node in public(tree.body):
        marks = decorators(node)
        if "overload" in marks or ".setter" in marks:
            continue
        docstring = ast.get_docstring(node)
        if not docstring:
            yield f"{name} has no docstring"
            continue
        described = section(docstring, "Parameters")
        if isinstance(node, ast.ClassDef):
            start = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
            expected = arguments(start[0]) if start else None
            if described is not None and expected is not None and described != expected:
                yield f"{name}: the docstring describes {described}, __init__ takes {expected}"
        elif described is None and not (arguments(node) and must_describe(path, name, marks)):
            continue
        elif (described or []) != arguments(node):
            yield f"{name}: the docstring describes {described}, the signature has {arguments(node)}"


def must_describe(path: Path, name: str, marks: str) -> bool:
    """Whether a user meets it: then every argument is described; inside the house a sentence may do.

    Commands are documented by their options, hooks by the framework that calls them.
    """
    if "command" in marks or name.split(".", maxsplit=1)[0].endswith("Hooks"):
        return False
    module = module_name(path)
    if module.startswith("trajtools._kernels"):
        return False
    return name.split(".", maxsplit=1)[0] in EXPORTED or module in OPEN_MODULES


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_docstrings_describe_the_arguments_that_there_are(path: Path) -> None:
    found = list(problems(path))
    assert not found, "\n".join(found)


def test_level_is_a_confidence_and_alpha_a_rate_of_false_alarms_in_every_public_signature() -> None:
    wrong, seen = [], {"level": 0, "alpha": 0}
    for path in FILES:
        for name, node in public(ast.parse(path.read_text()).body):
            docstring = ast.get_docstring(node)
            if isinstance(node, ast.ClassDef) or not must_describe(path, name, decorators(node)) or not docstring:
                continue
            a = node.args
            defaults = dict(zip([arg.arg for arg in (*a.posonlyargs, *a.args)][::-1], a.defaults[::-1], strict=False))
            defaults |= {arg.arg: value for arg, value in zip(a.kwonlyargs, a.kw_defaults, strict=True) if value}
            for word, value, meaning in (("level", 0.95, "Confidence level"), ("alpha", 0.01, "False-alarm rate")):
                if word not in arguments(node):
                    continue
                seen[word] += 1
                default = ast.literal_eval(defaults[word]) if word in defaults else None
                if default != value or not re.search(rf"^{word} : float\n +{meaning}", docstring, re.MULTILINE):
                    wrong.append(f"{module_name(path)}.{name}: {word}={default}")
    assert not wrong, "\n".join(wrong)
    assert seen["level"] >= 15
    assert seen["alpha"] >= 3


# Results that other functions make (in their examples), the type of an argument, and what is plotted of a race.
WITHOUT_EXAMPLE = {"Sharpness", "Trace", "BatchSharpness", "SpectralDensity", "TangentExponents", "Edge"}
WITHOUT_EXAMPLE |= {"CurvatureState", "HessianProbes", "Fit", "fit_slope", "edge"}
NAMESAKES = {
    f"recorders.{name}" for name in ("shadows.Shadow", "tangents.Tangents", "twins.Twins", "torch.twins.stack")
}
NAMESAKES |= {"trajtools.structure.dimension.Scaling"}  # of public names


def test_every_public_function_and_class_has_an_example() -> None:
    without = []
    for path in FILES:
        module = module_name(path)
        if module.startswith(("trajtools._kernels", "trajtools.cli", "trajtools.errors")):
            continue
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, Function | ast.ClassDef) or "overload" in decorators(node):
                continue
            is_public = node.name in EXPORTED - WITHOUT_EXAMPLE and f"{module}.{node.name}" not in NAMESAKES
            warns = isinstance(node, ast.ClassDef) and any("Warning" in ast.unparse(base) for base in node.bases)
            if is_public and not warns and ">>> " not in (ast.get_docstring(node) or ""):
                without.append(f"{module}.{node.name}")
    assert not without, "\n".join(without)


@pytest.mark.parametrize("path", [p for p in FILES if ">>> " in p.read_text()], ids=module_name)
def test_examples_in_docstrings_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in OPTIONAL:
        if re.search(rf"^\s*(>>> )?(import|from) {package}\b", path.read_text(), re.MULTILINE):
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(module_name(path)))
    assert result.attempted > 0
    assert result.failed == 0
