"""The direction of imports is the shape of the house: read from the source, and seen in fresh interpreters."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent

# A module imports from the layers above its own, and from its own layer where that makes no circle. Imports inside
# functions count, and between layers those that only annotations need. Figures are drawn by `plots`, which results
# import inside their `plot` methods and nowhere else.
LAYERS = (
    ("errors", "types", "reasons", "results", "wording", "clocks", "values"),
    ("_kernels",),
    ("wiring", "trajectory", "networks", "inputs"),
    ("store",),
    ("checkpoints",),
    ("distances",),
    ("statistics", "systems", "embedding", "neighbors"),
    ("structure", "exponents"),
    ("recurrences", "stability", "training"),
    ("sweeps",),
    ("exports", "report"),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FIGURES = "trajtools.plots"

HOMES = {
    "h5py": ("trajtools.store",),
    "hdf5plugin": ("trajtools.store",),
    "numba": ("trajtools._kernels",),
    "click": ("trajtools.cli",),
    "rich": ("trajtools.cli",),
    "safetensors": ("trajtools.checkpoints",),
    "tensorstore": ("trajtools.checkpoints",),
    "matplotlib": ("trajtools.plots", "trajtools.report.render"),
    "jinja2": ("trajtools.report.render",),
    "markupsafe": ("trajtools.report.render",),
    "torch": ("recorders.torch", "recorders.lightning", "recorders.huggingface"),
    "jax": ("recorders.jax",),
    "lightning": ("recorders.lightning",),
    "pytorch_lightning": ("recorders.lightning",),
    "transformers": ("recorders.huggingface",),
    "keras": ("recorders.keras",),
}
HEAVY = {"numba", "scipy", "networkx", "matplotlib", "jinja2", "torch", "jax", "sklearn", "nolds"}


@dataclass(frozen=True)
class Import:
    """`module` imports `imported`; `lazily`: inside a function."""

    module: str
    imported: str
    lazily: bool
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.imported}"

    def of(self, package: str) -> bool:
        return self.imported == package or self.imported.startswith(package + ".")


def modules() -> dict[str, Path]:
    found = {}
    for package in ("trajtools", "recorders"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk(node: ast.AST, annotations: bool, lazily: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        if for_types_only(child) and not annotations:
            continue
        inside = lazily or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield child, inside
        yield from walk(child, annotations, inside)


def imported_names(node: ast.AST, module: str, is_package: bool, known: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = module.split(".") if is_package else module.split(".")[:-1]
        parents = base[: len(base) - node.level + 1] if node.level else []
        source = ".".join([*parents, *([node.module] if node.module else [])])
        for alias in node.names:
            yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


@cache
def imports(annotations: bool = False) -> tuple[Import, ...]:
    """What each module imports; with `annotations` also what it imports to name types only."""
    found, known = [], modules()
    for module, path in known.items():
        for node, lazily in walk(ast.parse(path.read_text()), annotations):
            for name in imported_names(node, module, path.name == "__init__.py", set(known)):
                found.append(Import(module, name, lazily, getattr(node, "lineno", 0)))
    return tuple(found)


def member(module: str) -> str:
    """``trajtools.store.files`` -> ``store``."""
    return module.split(".")[1] if "." in module else ""


def test_the_source_is_there_to_be_read() -> None:
    assert {"trajtools.errors", "trajtools.trajectory", "recorders"} <= set(modules())
    assert any(
        i.module == "trajtools.trajectory" and i.imported == "trajtools.networks" and i.lazily for i in imports()
    )


def test_every_module_has_a_layer_and_a_name_that_says_something() -> None:
    top = {member(m) for m in modules() if m.startswith("trajtools.")}
    assert top - {"plots"} <= set(RANK), f"no layer for {sorted(top - set(RANK))}"
    nameless = {"utils", "util", "core", "base", "helpers", "common", "misc"}
    assert not [m for m in modules() if nameless & {part.strip("_") for part in m.split(".")}]


def test_modules_import_only_from_layers_above_their_own() -> None:
    wrong = [
        str(i)
        for i in imports(annotations=True)
        if i.module.startswith("trajtools.") and i.imported.startswith("trajtools.") and not i.of(FIGURES)
        if not i.module.startswith(FIGURES) and RANK[member(i.imported)] > RANK[member(i.module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_figures_import_nothing_of_ours_and_are_imported_inside_functions() -> None:
    wrong = [str(i) for i in imports() if i.module.startswith(FIGURES) and i.of("trajtools") and not i.of(FIGURES)]
    wrong += [str(i) for i in imports() if i.of(FIGURES) and not i.lazily and not i.module.startswith(FIGURES)]
    assert not wrong, "\n".join(wrong)


def test_there_is_no_circle_of_imports() -> None:
    graph: dict[str, set[str]] = {}
    for i in imports():
        if i.imported in modules() and i.imported != i.module:
            graph.setdefault(i.module, set()).add(i.imported)
    circles = [c for c in nx.strongly_connected_components(nx.DiGraph(graph)) if len(c) > 1]
    assert not circles, "\n".join(", ".join(sorted(c)) for c in circles)


def test_kernels_import_no_other_module_of_ours() -> None:
    assert not [
        str(i)
        for i in imports()
        if i.module.startswith("trajtools._kernels") and i.of("trajtools")
        if not (i.of("trajtools._kernels") or i.of("trajtools.types"))
    ]


def test_trajtools_never_imports_a_framework_or_the_recorders() -> None:
    forbidden = ("recorders", "torch", "jax", "jaxlib", "flax", "optax", "equinox", "tensorflow")
    wrong = [str(i) for i in imports() if i.module.startswith("trajtools") and any(map(i.of, forbidden))]
    assert not wrong, "\n".join(wrong)


def test_recorders_import_analysis_inside_functions_only_and_nothing_that_shows_results() -> None:
    light = ("errors", "types", "reasons", "results", "wording", "clocks", "values", "wiring", "trajectory", "store")
    ours = [i for i in imports() if i.module.startswith("recorders") and i.of("trajtools")]
    wrong = [str(i) for i in ours if member(i.imported) not in light and not i.lazily]
    wrong += [str(i) for i in ours if member(i.imported) in ("cli", "report")]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", sorted(HOMES))
def test_a_dependency_lives_in_its_home(package: str) -> None:
    wrong = [str(i) for i in imports() if i.of(package) and not i.module.startswith(HOMES[package])]
    assert not wrong, "\n".join(wrong)


def test_packages_that_few_calls_need_are_loaded_inside_functions_only() -> None:
    packages = ("matplotlib", "jinja2", "markupsafe", "hdf5plugin", "nolds", "ruptures", "safetensors", "tensorstore")
    wrong = [str(i) for i in imports() if not i.lazily and any(map(i.of, packages))]
    assert not wrong, "\n".join(wrong)


def test_the_store_loads_nothing_that_a_recorder_must_not_load() -> None:
    near = ("errors", "types", "reasons", "results", "wording", "clocks", "values", "wiring", "trajectory", "store")
    wrong = [str(i) for i in imports() if member(i.module) in near and not i.lazily and any(map(i.of, HEAVY))]
    assert not wrong, "\n".join(wrong)


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after `code`."""
    report = "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})), file=sys.stderr)"
    script = f"import json, sys\n{code}\n{report}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_import_trajtools_loads_no_dependency_at_all() -> None:
    loaded = loaded_by("import trajtools; dir(trajtools)")
    assert "trajtools" in loaded
    assert not loaded & (HEAVY | {"numpy", "h5py", "click"})


def test_import_recorders_loads_no_heavy_package() -> None:
    loaded = loaded_by("import recorders; recorders.Recorder")
    assert {"numpy", "h5py", "recorders"} <= loaded
    assert not loaded & (HEAVY | {"click"})


def test_help_loads_neither_numpy_nor_h5py() -> None:
    code = (
        "from trajtools.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code"
    )
    loaded = loaded_by(code)
    assert "click" in loaded
    assert not loaded & (HEAVY | {"numpy", "h5py"})


def test_every_public_name_can_be_loaded() -> None:
    code = "import trajtools\nfor name in trajtools.__all__: assert getattr(trajtools, name) is not None, name"
    assert "numpy" in loaded_by(code)


@pytest.mark.parametrize("order", ["import trajtools, recorders", "import recorders, trajtools"])
@pytest.mark.parametrize("name", ["recorders.py", "recorders/__init__.py"])
def test_a_file_that_hides_our_recorders_is_named(tmp_path, name, order):
    hides = tmp_path / name
    hides.parent.mkdir(exist_ok=True)
    hides.touch()
    tmp_path.joinpath("program.py").write_text(order)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"finds {hides}, which hides the package" in done.stderr
    assert "rename it" in done.stderr
