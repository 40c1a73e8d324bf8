"""Which arrays of a checkpoint are the state: the same that the recorder takes of the network while it trains."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from trajtools.checkpoints.arrays import Leaf, leaf_of
from trajtools.checkpoints.pickles import Global, Inert, PickledArray
from trajtools.checkpoints.pytorch import state_dict_of
from trajtools.checkpoints.steps import natural
from trajtools.errors import DataError, SelectionError, TrajtoolsError
from trajtools.wiring import FLOATS, is_selected, listed

DEEPEST = 50
MOST_ENTRIES = 1_000_000
COUNTS = re.compile(r"u?int\d+|bool")
# What trainers keep beside the weights in one file.
BESIDE = re.compile(
    r"optim\w*|opt|opt_\w*|lr|lr_sched\w*|sched\w*|\w*scaler|callbacks|loops|hyper_?param\w*|hparams\w*|\w*args|\w*config\w*|"
    r"rng\w*|random_states?|datamodule\w*|batch_stats",
    re.IGNORECASE,
)
RUNNING = re.compile(r"(^|[./])(running_mean|running_var|num_batches_tracked|moving_mean|moving_variance)$")
OBJECT = ("an object",)  # the place of what is no array
WHOLE = "."  # the --key of all of a file


@dataclass(frozen=True)
class Weights:
    """The arrays of a checkpoint by name, and what was left out.

    Attributes
    ----------
    leaves : dict of str to Leaf
        In the order of the file, frameworks with unordered trees in natural order.
    entry : str
        The entry of the file that holds them; empty for all of it.
    left_out : dict of str to list of str
        Names by reason.
    """

    leaves: dict[str, Leaf]
    entry: str = ""
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @property
    def names_left_out(self) -> list[str]:
        """All names that were left out."""
        return [name for names in self.left_out.values() for name in names]


def weights_of(
    tree: Any,
    where: str,
    *,
    key: str | None = None,
    rename: Callable[[str], str] = str,
    include: Sequence[str] = (),
) -> Weights:
    """Choose the arrays of a checkpoint that are trained.

    Parameters
    ----------
    tree : object
        What `open_checkpoint` gives.
    where : str
        The file, for messages.
    key : str, optional
        Entry with the weights, dotted; "." for all of the file.
    rename : callable
        From a name without the prefixes of wrappers to the name in the run.
    include : sequence of str
        Globs; arrays that would be left out are taken where a glob matches no others.

    Notes
    -----
    As the recorder does: ``module.`` (data parallelism) and ``_orig_mod.`` (torch.compile) are stripped, tied weights
    are one array, and frozen parameters, running statistics and integers are no part of the state. A file that says
    nothing of what is trained is taken at the names that frameworks give to their statistics.
    """
    try:
        entry, content = _entry(tree, where, key)
        named = _renamed(_flat(content, where), where, rename)
    except TrajtoolsError:
        raise
    except ValueError as problem:  # an array of a pickle is damaged
        raise DataError(f"{where} cannot be read: {problem}") from problem
    left_out: dict[str, list[str]] = {}
    leaves: dict[str, Leaf] = {}
    places: dict[Any, str] = {}
    statistics = _statistics(named)
    reasons = {name: _reason(name, leaf, statistics) for name, leaf in named.items()}
    forced = [one for one in include if not any(not why and fnmatchcase(name, one) for name, why in reasons.items())]
    for name, leaf in named.items():
        reason = reasons[name]
        if reason and not (forced and is_selected(name, forced, ())):
            left_out.setdefault(reason, []).append(name)
        elif leaf.place in places and leaf.place != OBJECT:
            left_out.setdefault("tied to another", []).append(name)
        else:
            if leaf.place is not None:
                places[leaf.place] = name
            leaves[name] = leaf
    if not leaves and left_out:
        listing = "; ".join(f"{reason}: {listed(names, 5)}" for reason, names in left_out.items())
        raise DataError(f"{where} holds no array that is trained ({listing}): take some of these with --include")
    return Weights(leaves, entry, left_out)


def renaming(pairs: Sequence[str]) -> tuple[Callable[[str], str], Callable[[], None]]:
    """Return what renames arrays by ``OLD=NEW`` at the beginning of their names, and a check that each was used."""
    rules = []
    for pair in pairs:
        old, sign, new = pair.partition("=")
        if not sign or not old:
            raise SelectionError(f"--rename {pair!r} is not OLD=NEW, two beginnings of names: 'model.=' drops 'model.'")
        rules.append((old, new))
    unused = {old for old, _ in rules}

    def rename(name: str) -> str:
        for old, new in rules:
            if name.startswith(old):
                unused.discard(old)
                name = new + name[len(old) :]
        return name

    def check() -> None:
        if unused:
            raise SelectionError(f"--rename: no array begins with {listed(sorted(unused))}")

    return rename, check


def _reason(name: str, leaf: Leaf, statistics: set[str]) -> str:
    """Say why an array is no part of the state; empty where it is."""
    if leaf.trainable is False:
        return "not trained"
    if RUNNING.search(name) or name in statistics:
        return "running statistics"
    return "integers" if COUNTS.fullmatch(leaf.dtype) else ""


def _statistics(named: Mapping[str, Leaf]) -> set[str]:
    """Return the means and variances of flax: they stand beside a scale or a bias of the same shape."""
    statistics = set()
    for name, leaf in named.items():
        layer, _, last = name.rpartition(".")
        if last == "mean" and f"{layer}.var" in named:
            beside = [named.get(f"{layer}.{one}") for one in ("scale", "bias")]
            if any(one is not None and one.shape == leaf.shape for one in beside):
                statistics |= {name, f"{layer}.var"}
    return statistics


def _renamed(named: dict[str, Leaf], where: str, rename: Callable[[str], str]) -> dict[str, Leaf]:
    """Strip what wrappers add to names, then rename."""
    clean = {name: name.replace("_orig_mod.", "") for name in named}
    floats = [name for name, leaf in named.items() if leaf.dtype in FLOATS]  # an average has a counter beside them
    while floats and all(clean[name].startswith("module.") for name in floats):
        clean = {old: name.removeprefix("module.") for old, name in clean.items()}
    leaves: dict[str, Leaf] = {}
    for old, name in clean.items():
        new = rename(name)
        if new in leaves:
            raise DataError(f"{where} has two arrays that are called {new!r} in the run (one is {old!r}): use --rename")
        leaves[new] = named[old]
    return leaves


# Where the weights are


def _entry(tree: Any, where: str, key: str | None) -> tuple[str, Any]:
    """Return the entry of a file that holds the weights, and its name."""
    if key == WHOLE:
        return "", _without_company(tree) if isinstance(tree, Mapping) else tree
    if key is not None:
        content = select(tree, key)
        if content is _NOTHING:
            raise DataError(f"{where} has no entry {key!r}; it holds {summary(tree)}")
        if not isinstance(content, Leaf | PickledArray | Mapping | list | tuple | Inert):
            raise DataError(
                f"{where}: the entry {key!r} is {_what(content)}, which holds no array; it holds {summary(tree)}"
            )
        return key, content
    if isinstance(tree, Leaf | PickledArray):
        return "", tree
    candidates: list[tuple[str, Any]] = []
    _search(tree, "", 0, candidates, set())
    if not candidates:
        raise DataError(f"{where} holds {summary(tree)}: needed arrays by name, as model.state_dict() gives")
    if len(candidates) > 1:
        options = " or ".join(f"--key {_quoted(path)}" for path, _ in candidates[:6] if path.isprintable())
        raise DataError(
            f"{where} holds {summary(tree)}, and several of them are weights: choose with {options} (--key . takes all)"
        )
    return candidates[0]


_NOTHING = object()


def select(tree: Any, key: str) -> Any:
    """Return the entry of a dotted key: names may hold dots themselves, lists are counted from 0."""
    if isinstance(tree, Inert):
        tree = state_dict_of(tree) or (tree.state if isinstance(tree.state, Mapping) else {})
    if isinstance(tree, list | tuple):
        tree = {str(i): value for i, value in enumerate(tree)}
    if not isinstance(tree, Mapping):
        return _NOTHING
    by_text = {str(name): value for name, value in tree.items() if isinstance(name, str | int)}
    if key in by_text:
        return by_text[key]
    for dot in (i for i, letter in enumerate(key) if letter == "."):
        if key[:dot] in by_text:
            below = select(by_text[key[:dot]], key[dot + 1 :])
            if below is not _NOTHING:
                return below
    beginning = {n[len(key) + 1 :]: v for n, v in by_text.items() if n.startswith((f"{key}.", f"{key}/"))}
    return beginning or _NOTHING


def _quoted(path: str) -> str:
    return path if re.fullmatch(r"[\w.\-]+", path) else "'" + path.replace("'", "'\\''") + "'"


def _search(node: Any, path: str, depth: int, networks: list[tuple[str, Any]], visited: set[int]) -> None:
    """Collect the entries that can be a network: dicts of arrays, trees of them, and modules that were saved whole."""
    if depth > 6 or id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, Inert):
        entries = state_dict_of(node)
        if entries:
            networks.append((path, entries))
        return
    if isinstance(node, list | tuple) and not path:
        node = {str(i): value for i, value in enumerate(node)}
    if not isinstance(node, Mapping) or "param_groups" in node:
        return
    node = _without_company(node)
    params = node.get("params")
    if isinstance(params, Mapping | list | tuple) and _is_tree(params):
        path = _join(path, "params")
        inner = params.get("params") if isinstance(params, Mapping) else None
        networks.append((path, params) if not isinstance(inner, Mapping) else (_join(path, "params"), inner))
        return
    if _is_tree(node):
        networks.append((path, node))
        return
    below: list[tuple[str, Any]] = []
    for name, value in node.items():
        if isinstance(name, str):
            _search(value, _join(path, name), depth + 1, below, visited)
    own = {name: value for name, value in node.items() if not isinstance(value, Mapping | list | tuple)}
    count = _count(own)
    if count > max((_count(content) for _, content in below), default=0):
        networks.append((path, own))
    else:
        networks.extend(below)


def _count(content: Any) -> int:
    """Count the arrays of floats, of more than one number, below a node; shared nodes once."""
    waiting, visited, count = [content], set(), 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping | list | tuple):
            if id(one) not in visited:
                visited.add(id(one))
                waiting.extend(one.values() if isinstance(one, Mapping) else one)
        else:
            one = leaf_of(one) if isinstance(one, PickledArray) else one
            count += isinstance(one, Leaf) and one.dtype in FLOATS and one.shape != ()
    return count


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _without_company(node: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return what of a dict is no optimiser, scheduler and the like."""

    def belongs(name: Any, value: Any) -> bool:
        is_array = isinstance(value, Leaf | PickledArray)
        return is_array or not (isinstance(name, str) and BESIDE.fullmatch(name))

    return {name: value for name, value in node.items() if belongs(name, value)}


def _is_tree(node: Any) -> bool:
    """Whether a node holds nested arrays and nothing else, as JAX has them; tensors of PyTorch have a place."""
    waiting, visited, count = [(node, 0)], set(), 0
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, Mapping | list | tuple) and depth < DEEPEST:
            if isinstance(one, Mapping) and not all(isinstance(key, str) for key in one):
                return False
            if id(one) not in visited:
                visited.add(id(one))
                waiting.extend((value, depth + 1) for value in (one.values() if isinstance(one, Mapping) else one))
        elif isinstance(one, PickledArray) or (isinstance(one, Leaf) and one.place is None):
            count += 1
        else:
            return False
    return count > 0


def _flat(content: Any, where: str) -> dict[str, Leaf]:
    """Return the arrays of nested dicts and lists by dotted names; objects stay, as what cannot be read."""
    nested = isinstance(content, Mapping) and any(isinstance(value, Mapping) for value in content.values())
    walk = _Walk(nested and _is_tree(content))
    walk.visit(content, "", 0)
    leaves = walk.leaves
    if any(leaf.place != OBJECT for leaf in leaves.values()):
        return leaves
    listing = listed([f"{name}: {leaf.dtype}" for name, leaf in leaves.items()], 5)
    why = f"objects stand where arrays are needed ({listing}), and they are never loaded, because that would run code"
    raise DataError(
        f"{where}: {why if leaves else f'it holds {summary(content)}'}; needed arrays by name, as model.state_dict() "
        "gives"
    )


class _Walk:
    """Collects the arrays of nested dicts and lists; `unordered`: in natural order, as the recorder of JAX does."""

    def __init__(self, unordered: bool) -> None:
        self.unordered = unordered
        self.leaves: dict[str, Leaf] = {}
        self.left = MOST_ENTRIES

    def visit(self, node: Any, path: str, depth: int) -> None:
        """Collect what stands below a node."""
        self.left -= 1
        if depth > DEEPEST or self.left < 0:
            raise DataError(f"a checkpoint with more than {DEEPEST} levels or {MOST_ENTRIES:,} entries is not read")
        if isinstance(node, Inert):
            node = state_dict_of(node) or node
        if isinstance(node, PickledArray):
            node = leaf_of(node)
        if isinstance(node, Leaf):
            self.leaves[path or "weights"] = node
        elif isinstance(node, Inert) and not path.endswith("_extra_state"):
            self.leaves[path or "it"] = Leaf((), f"an object of {node.origin}", lambda: np.empty(0), OBJECT)
        elif isinstance(node, Mapping):
            for key in sorted(node, key=lambda k: natural(_name(k))) if self.unordered else node:
                self.visit(node[key], _join(path, _name(key)), depth + 1)
        elif isinstance(node, list | tuple):
            for index, value in enumerate(node):
                self.visit(value, _join(path, str(index)), depth + 1)


def summary(content: Any) -> str:
    """Say what stands in a file, entry by entry."""
    if not isinstance(content, Mapping):
        return _what(content)
    return listed([f"{_name(key)} ({_what(value)})" for key, value in content.items()], 8) or "nothing"


def _name(key: Any) -> str:
    return key if isinstance(key, str) else _what(key) if isinstance(key, Inert) else repr(key)[:40]


def _what(value: Any) -> str:
    if isinstance(value, Leaf):
        return f"{value.dtype} of shape {value.shape}"
    if isinstance(value, PickledArray):
        return "an array"
    if isinstance(value, Inert):
        return f"an object of {value.origin}"
    if isinstance(value, Global):
        return f"the name {value.name}"
    if isinstance(value, Mapping | list | tuple):
        return f"{len(value)} entries"
    return "nothing" if value is None else type(value).__name__
