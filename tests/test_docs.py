"""Every public name stands in the documentation, and the notebooks hold the outputs that the site shows."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("distances", "exponents", "neighbors", "recurrences", "stability", "structure", "sweeps", "training")
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


def listed_names(path: Path) -> set[str]:
    """The names in `__all__`, or without one, those that the module re-exports as ``X as X``."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return {alias.name for node in imports for alias in node.names if alias.asname == alias.name}


def documented(text: str) -> set[str]:
    """The names in code of a page: the last part of ``tt.structure.pca``, every word of a program."""
    code = re.findall(r"```.*?```|`[^`]+`", text, flags=re.S)
    return {word for piece in code for word in re.findall(r"\w+", piece)}


def pages() -> str:
    return "\n".join(
        path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *NOTEBOOKS]
    )


def section(heading: str) -> str:
    text = (ROOT / "docs" / "api.md").read_text()
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, flags=re.S | re.M)
    assert found, f"docs/api.md has no section {heading!r}"
    return found[1]


def test_every_top_level_name_is_documented() -> None:
    import trajtools

    missing = set(trajtools.__all__) - documented(section("trajtools"))
    assert not missing


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_a_package_is_documented(package: str) -> None:
    names = listed_names(ROOT / "trajtools" / package / "__init__.py")
    assert names
    assert not names - documented(section(f"tt.{package}"))


def test_every_figure_is_documented() -> None:
    assert not listed_names(ROOT / "trajtools" / "plots" / "__init__.py") - documented(section("tt.plots"))


@pytest.mark.parametrize("package", ["recorders", "recorders/torch", "recorders/jax"])
def test_every_name_of_the_recorders_is_documented(package: str) -> None:
    names = listed_names(ROOT / package / "__init__.py")
    assert names
    heading = "recorders" if package == "recorders" else "recorders.torch and recorders.jax"
    assert not names - documented(section(heading))


def test_names_in_the_pages_exist() -> None:
    """Every ``tt.name`` and ``tt.module.name`` in a page can be imported."""
    import trajtools

    wrong = []
    for dotted in sorted(set(re.findall(r"\btt((?:\.[A-Za-z_]\w*)+)", pages()))):
        thing: object = trajtools
        for name in dotted.strip(".").split("."):
            if not hasattr(thing, name):
                wrong.append(f"tt{dotted}")
                break
            thing = getattr(thing, name)
    assert not wrong


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_its_outputs(path: Path) -> None:
    """Executed from the first cell to the last, without errors, paths of a machine or megabytes."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    shown = json.dumps(outputs)
    assert not re.search(r"/(home|root|tmp|work|Users)/", shown)
    assert len(shown) < 2_000_000
    for cell in cells:
        if re.search(r"\.plot\(|plots\.\w+\(", "".join(cell["source"])):
            assert any("image/png" in output.get("data", {}) for output in cell["outputs"]), cell["source"]


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    listed = {line for block in re.findall(r"```{toctree}\n(.*?)```", index, flags=re.S) for line in block.splitlines()}
    paths = [*(ROOT / "docs").rglob("*.md"), *NOTEBOOKS]
    names = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in paths if "build" not in path.parts}
    assert names - listed == {"index"}
