"""Build the site: `python -m sphinx -W docs build/site`. Plain files without anything from the network.

The pages of the reference are made from the public names and their docstrings, into docs/reference, which git ignores.
Notebooks are shown with the outputs that they hold; `python docs/notebooks.py` executes them.
"""

from __future__ import annotations

import ast
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.transforms.post_transforms import SphinxPostTransform

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

project = "trajtools"
author = "trajtools developers"
copyright = author
release = version = import_module("trajtools").__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_design",
    "sphinx_copybutton",
]
exclude_patterns = ["build"]
html_theme = "furo"
html_title = "trajtools"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_inline"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_merge_streams = True
copybutton_exclude = ".linenos, .gp, .go"

autodoc_typehints = "none"  # types and shapes stand in the docstrings
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
FRAMEWORKS = (
    "torch",
    "jax",
    "jaxlib",
    "lightning",
    "pytorch_lightning",
    "transformers",
    "keras",
)
autodoc_mock_imports = [
    name for name in FRAMEWORKS if name == "keras" or not find_spec(name)
]  # its import needs a backend

MODULES = {
    "trajtools": "Open files, compare states, measure exponents",
    "trajtools.distances": "Metrics, and networks modulo symmetries",
    "trajtools.exponents": "Results of the exponents",
    "trajtools.neighbors": "Rules and searches of neighbours",
    "trajtools.embedding": "Delay vectors and their parameters",
    "trajtools.structure": "Correlation, cycles, dimension, projections, change points",
    "trajtools.recurrences": "Recurrence quantification",
    "trajtools.stability": "Orbital stability",
    "trajtools.training": "Edge of stability, order and chaos of layers",
    "trajtools.sweeps": "Many runs",
    "trajtools.systems": "Systems with known exponents",
    "trajtools.networks": "States as graphs",
    "trajtools.wiring": "Parameters as edges",
    "trajtools.plots": "Figures",
    "trajtools.errors": "Errors",
    "trajtools.store.foreign": "HDF5 files of other programs",
    "recorders": "Recorders of any loop",
    "recorders.torch": "Recorders and probes for PyTorch",
    "recorders.jax": "Recorders and probes for JAX",
    "recorders.lightning": "Callbacks for Lightning",
    "recorders.huggingface": "Callbacks for the Trainer of Hugging Face",
    "recorders.keras": "Callbacks for Keras",
    "recorders.iris": "A small training to try things on",
}


def setup(app: Any) -> dict[str, Any]:
    """Write the pages of the reference, show formulas as MathML, and link names in code to the reference."""
    app.connect("config-inited", write_reference)
    app.add_post_transform(LinkNames)
    app.set_html_assets_policy("per_page")
    for node, as_block in ((nodes.math, False), (nodes.math_block, True)):
        app.add_node(node, html=(_mathml(as_block), None), override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _mathml(as_block: bool) -> Any:
    def visit(translator: Any, node: nodes.Element) -> None:
        formula = tex2mathml(
            node.astext().replace("\\dots", "\\ldots"), as_block=as_block
        )
        translator.body.append(
            f'<div class="formula">{formula}</div>' if as_block else formula
        )
        raise nodes.SkipNode

    return visit


def write_reference(_app: Any, _config: Any) -> None:
    """Write docs/reference, a page for each module: every public name once, where users import it from."""
    folder = DOCS / "reference"
    folder.mkdir(exist_ok=True)
    pages, seen = [], set[Any]()
    for module, title in MODULES.items():
        names = (
            [name for name in public_names(module) if _is_new(module, name, seen)]
            if _exists(module)
            else []
        )
        if names:
            pages.append(module)
            lines = [
                module,
                "=" * len(module),
                "",
                f"{title}.",
                "",
                f".. currentmodule:: {module}",
                "",
            ]
            lines += [
                ".. autosummary::",
                "   :nosignatures:",
                "",
                *(f"   {name}" for name in names),
                "",
            ]
            for name in names:
                lines += ["", f".. {_directive(module, name)}:: {name}"]
                if _directive(module, name) == "autoclass":
                    lines += [
                        "   :members:",
                        f"   :inherited-members: {', '.join(ENDS)}",
                    ]
            _write(folder / f"{module}.rst", lines)
    head = [
        "API reference",
        "=============",
        "",
        "Throughout, ``import trajtools as tt``. :doc:`../api` has all names on one page.",
    ]
    _write(
        folder / "index.rst",
        [
            *head,
            "",
            ".. toctree::",
            "   :maxdepth: 1",
            "",
            *(f"   {page}" for page in pages),
        ],
    )
    for stale in set(folder.glob("*.rst")) - {
        folder / f"{page}.rst" for page in [*pages, "index"]
    }:
        stale.unlink()


ENDS = (
    "object",
    "Exception",
    "Mapping",
    "tuple",
)  # members of these are known to everybody


def _write(page: Path, lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def _directive(module: str, name: str) -> str:
    if not _importable(module):  # of a framework that need not be here
        return "autoclass" if _home(module, name)[1] else "autofunction"
    thing = getattr(import_module(module), name)
    return (
        "autoclass"
        if isinstance(thing, type)
        else "autofunction"
        if callable(thing)
        else "autodata"
    )


def _home(module: str, name: str) -> tuple[str, bool]:
    """The module that defines a name, and whether it is a class; found in the source, without importing it."""
    for node in ast.walk(ast.parse(_source(module).read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return module, isinstance(node, ast.ClassDef)
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and any(name in (a.asname, a.name) for a in node.names)
        ):
            return _home(node.module, name)
    return module, False  # a bound function


def public_names(module: str) -> list[str]:
    """The names in `__all__`, or without one, those re-exported as ``X as X``, or else those defined there."""
    tree = ast.parse(_source(module).read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = (
                list(import_module(module).__all__)
                if _importable(module)
                else ast.literal_eval(node.value)
            )
            return [
                name
                for name in listed
                if not name.startswith("__") and not _exists(f"{module}.{name}")
            ]
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    names = [
        alias.name
        for node in imports
        for alias in node.names
        if alias.asname == alias.name
    ]
    if names:
        return sorted(set(names))
    for node in tree.body:  # classes that exist where their framework does
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            classes = [
                child.name for child in node.body if isinstance(child, ast.ClassDef)
            ]
            if classes:
                return classes
    defined = (
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    )
    return [name for name in defined if not name.startswith("_")]


def _importable(module: str) -> bool:
    return module.startswith("trajtools") or module == "recorders"


def _source(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _exists(module: str) -> bool:
    return _source(module).exists()


def _is_new(module: str, name: str, seen: set[Any]) -> bool:
    """Whether an object is not yet in the reference under another name."""
    if _importable(module):
        thing = getattr(import_module(module), name)
        if isinstance(thing, ModuleType):
            return False
        key: Any = id(thing)
    else:
        key = (_home(module, name)[0], name)
    new = key not in seen
    seen.add(key)
    return new


class LinkNames(SphinxPostTransform):
    """Link code such as ``tt.lyapunov(x)`` or ``recorders.torch.Twins`` to the reference."""

    default_priority = 400

    def run(self, **_options: Any) -> None:
        """Wrap each literal that names a public object in a reference."""
        objects = self.env.get_domain("py").objects  # type: ignore[attr-defined]
        for literal in list(self.document.findall(nodes.literal)):
            match = re.match(
                r"(tt|trajtools|recorders)((?:\.\w+)+)(?:\(.*)?$", literal.astext()
            )
            if match is None or isinstance(literal.parent, nodes.reference):
                continue
            name = match[1].replace("tt", "trajtools") if match[1] == "tt" else match[1]
            entry = objects.get(name + match[2])
            if entry is not None and entry.docname != self.env.docname:
                target = self.app.builder.get_relative_uri(
                    self.env.docname, entry.docname
                )
                link = nodes.reference(
                    "", "", refuri=f"{target}#{entry.node_id}", internal=True
                )
                literal.replace_self(link)
                link += literal
