"""The size of the source tree, part by part, and how its modules hang together.

    python benchmarks/house.py            # this tree
    python benchmarks/house.py FOLDER     # another checkout

A line belongs to a docstring, is a comment (nothing but one), is blank, or is code. Imports inside functions count,
imports for type checkers alone do not. A circle is a set of modules of which each leads to every other by imports.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

PACKAGES = ("trajtools", "recorders")
SMALL = 60  # lines of code
Modules = dict[str, Path]
Graph = dict[str, set[str]]


def find_modules(root: Path) -> Modules:
    """All modules of the packages by their dotted names."""
    modules = {}
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def docstring_lines(tree: ast.Module) -> set[int]:
    """Numbers of the lines that docstrings take."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def count_lines(path: Path) -> Counter[str]:
    """Lines of one file by kind."""
    text = path.read_text(encoding="utf-8")
    documented, counts = docstring_lines(ast.parse(text)), Counter[str](files=1)
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        kind = "docstring" if number in documented else "code" if bare and not bare.startswith("#") else ""
        counts[kind or ("comment" if bare else "blank")] += 1
        counts["lines"] += 1
    return counts


def imports_of(node: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Modules imported below a node, each with the names taken from it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for branch in child.orelse:
                yield from imports_of(branch)
        elif isinstance(child, ast.Import):
            yield from ((alias.name, ()) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            yield child.module, tuple(alias.name for alias in child.names)
        else:
            yield from imports_of(child)


def import_graph(modules: Modules) -> Graph:
    """Each module with those of the packages that it imports, at once or inside a function."""
    graph: Graph = {}
    for module, path in modules.items():
        reached = set()
        for source, names in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
            inner = {f"{source}.{name}" for name in names} & modules.keys()
            reached |= inner | ({source} if len(inner) < len(names) or not names else set())
        graph[module] = reached & modules.keys() - {module}
    return graph


def reachable(graph: Graph, start: str) -> set[str]:
    """Every module to which imports lead from `start`."""
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph[module]
    return seen


def find_circles(graph: Graph) -> list[set[str]]:
    """Sets of modules that import each other, the largest first."""
    reach = {module: reachable(graph, module) for module in graph}
    circles = {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in graph
        if module in reach[module]
    }
    return sorted((set(circle) for circle in circles), key=len, reverse=True)


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    modules = find_modules(parser.parse_args().root.resolve())
    counts = {module: count_lines(path) for module, path in modules.items()}
    in_store = {m for m in modules if m == "trajtools.store" or m.startswith("trajtools.store.")}
    recorders = {m for m in modules if m.split(".")[0] == "recorders"}
    parts = {
        "trajtools without store": modules.keys() - in_store - recorders, "trajtools/store": in_store,
        "recorders": recorders, "all without store": modules.keys() - in_store, "all": modules.keys(),
    }  # fmt: skip
    kinds = ("files", "lines", "code", "docstring", "comment", "blank")
    print("| part | " + " | ".join(kinds) + f" | median file, code | files of at most {SMALL} |")
    print("| --- " * (len(kinds) + 3) + "|")
    for name, members in parts.items():
        total = sum((counts[module] for module in members), Counter[str]())
        code = [counts[module]["code"] for module in members]
        cells = [*(f"{total[kind]:,}" for kind in kinds), f"{median(code):g}", sum(size <= SMALL for size in code)]
        print(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    graph = import_graph(modules)
    importers = Counter(imported for reached in graph.values() for imported in reached)
    circles = find_circles(graph)
    definition = re.compile(r"^\s*(type )?Floats(\s*:[^=]*)?\s*=", re.MULTILINE)
    floats = sum(len(definition.findall(path.read_text(encoding="utf-8"))) for path in modules.values())
    print(f"\nModules imported by exactly one other: {sum(count == 1 for count in importers.values())}")
    print(f"Definitions of Floats: {floats}")
    print(f"Import circles: {len(circles)}, of {', '.join(str(len(circle)) for circle in circles) or 'no'} modules")
    for circle in circles:
        print(f"- {', '.join(sorted(circle))}")


if __name__ == "__main__":
    main()
