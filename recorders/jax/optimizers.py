"""What an optimiser of optax does, read from its state and measured on a few numbers.

A transformation of optax is a pair of functions; neither they nor their state hold the learning rate. So it is tried on
arrays of two entries an axis, and the updates are fitted by gradient descent or Adam. A name is given only to
an optimiser that repeats the updates of its formula on other gradients, other weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recorders.jax.trees import Layout, float64
from trajtools.errors import RecordingError
from trajtools.types import Floats
from trajtools.wiring import listed

ALIKE = 1e-5  # relative; schedules and injected hyper-parameters may be rounded to float32
SMALL = 1e-4  # gradients at which no usual clipping begins
PINNED = (0, 1, 10, 100, 1_000, 10_000)  # counts at which the rate of a schedule is looked for
MOST_MICRO_STEPS = 4096


def settings_of(optimizer: Any, layout: Layout, shapes: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Name and settings of an optimiser as torch names them, for the provenance of a run.

    Parameters
    ----------
    optimizer : optax.GradientTransformation, or what holds one as ``tx``
        `flax.nnx.Optimizer` and the train state of flax hold one.
    layout : Layout
        Of the network.
    shapes : sequence of tuple of int
        Of the arrays of one network.

    Returns
    -------
    dict
        ``name`` ("SGD", "Adam", "AdamW"; or that of its transformations, with ``is_known`` False), ``lr``,
        ``momentum``, ``nesterov``, ``weight_decay``, ``betas``, ... of the largest array; ``others``, arrays that are
        trained with other settings; ``clips``, whether large gradients are clipped; ``transforms``, the names of the
        states; ``injected``, hyper-parameters that the loop may change; ``missing``, what could not be read and how to
        say it.
    """
    transform = getattr(optimizer, "tx", optimizer)
    if not all(callable(getattr(transform, name, None)) for name in ("init", "update")):
        raise RecordingError(
            f"optimizer=... is a {type(optimizer).__name__}; pass the transformation of optax, which has init and "
            "update, or an object that holds it as tx. Its state goes to buffers="
        )
    with float64():
        try:
            trial = Trial.of(transform.init, jax.jit(transform.update), layout, shapes)
            settings, injected = trial.settings(), list(hyperparams(trial.opening))
        except Exception as error:  # of whatever an optimiser needs beside gradients and weights
            why = (
                f"it cannot be tried on small arrays ({type(error).__name__}); name it in hparams={{'optimizer': ...}}"
            )
            return _unnamed([], why)
    return {"transforms": transforms(trial.opening), **settings, **({"injected": injected} if injected else {})}


def settings_of_state(opt_state: Any) -> dict[str, Any]:
    """What the state of an optimiser says by itself: its transformations, and the hyper-parameters injected."""
    names, values = transforms(opt_state), hyperparams(opt_state)
    if not values and set(names) <= {"EmptyState"}:
        return {}
    why = f"its state ({', '.join(names)}) does not say its settings; open the recorder with optimizer=, too"
    settings = _unnamed(names, why)
    return {**settings, **_renamed(values), **({"injected": list(values)} if values else {})}


def _renamed(values: Mapping[str, float]) -> dict[str, Any]:
    """Hyper-parameters of optax under the names of torch."""
    settings: dict[str, Any] = {"lr": values["learning_rate"]} if "learning_rate" in values else {}
    if {"b1", "b2"} <= values.keys():
        settings["betas"] = [values["b1"], values["b2"]]
    return settings | {name: values[name] for name in ("momentum", "weight_decay", "eps") if name in values}


def learning_rate(opt_state: Any) -> float | None:
    """The rate in a state of `optax.inject_hyperparams`; None where it is not there, or follows a schedule.

    The state after an update holds the rate of that update, which under a schedule is not that of the next one.
    """
    return None if scheduled(opt_state) else hyperparams(opt_state).get("learning_rate")


def _unnamed(names: Sequence[str], missing: str) -> dict[str, Any]:
    """The entry of an optimiser whose update is no known formula: named after what its states hold."""
    bare = [name.removeprefix("ScaleBy").removesuffix("State") for name in names]
    name = " + ".join(one for one in bare if one != "Empty") or "an optimiser without a state"
    return {"name": name, "is_known": False, "transforms": list(names), "missing": missing}


@dataclass(frozen=True)
class Settings:
    """Parameters of the formulas of gradient descent and Adam."""

    name: str
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, ...] = ()
    eps: float = 0.0
    weight_decay: float = 0.0
    decoupled: bool = False

    def updates(self, gradients: Sequence[Floats], weights: Floats) -> Iterator[Floats]:
        """Updates of the formula for a sequence of gradients, at fixed weights."""
        m, v = np.zeros_like(weights), np.zeros_like(weights)
        for step, gradient in enumerate(gradients, 1):
            g = gradient + (0.0 if self.decoupled else self.weight_decay * weights)
            if self.name == "Adam":
                b1, b2 = self.betas
                m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
                move = m / (1 - b1**step) / (np.sqrt(v / (1 - b2**step)) + self.eps)
            else:
                m = self.momentum * m + g
                move = g + self.momentum * m if self.nesterov else m
            yield -self.lr * (move + (self.weight_decay * weights if self.decoupled else 0.0))

    def described(self) -> dict[str, Any]:
        """As torch names its settings."""
        settings: dict[str, Any] = {"name": self.name, "lr": _short(self.lr), "weight_decay": _short(self.weight_decay)}
        if self.name == "Adam":
            name = "AdamW" if self.decoupled else "Adam"
            return settings | {"name": name, "betas": [_short(beta) for beta in self.betas], "eps": _short(self.eps)}
        settings |= {"momentum": _short(self.momentum), "nesterov": self.nesterov}
        return settings | ({"decoupled_weight_decay": True} if self.decoupled else {})


@dataclass(frozen=True)
class Trial:
    """An optimiser on small arrays in the form of the network."""

    update: Callable[..., Any]
    put: Callable[[Sequence[Any]], Any]  # arrays in the order of `names` -> tree
    order: tuple[int, ...]  # positions of the leaves of that tree in `names`
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    main: int  # position of the largest array of the network
    opening: Any
    count: int | None = None  # where schedules stand, if there are any

    @classmethod
    def of(
        cls, init: Callable[..., Any], update: Callable[..., Any], layout: Layout, shapes: Sequence[tuple[int, ...]]
    ) -> Trial:
        """Begin in the tree of the network or, where that is more than its arrays, in a plain one."""
        main = int(np.argmax([prod(shape) for shape in shapes]))
        shapes = tuple(tuple(min(n, 2) for n in shape) for shape in shapes)
        zeros = [np.zeros(shape) for shape in shapes]

        def whole(arrays: Sequence[Any]) -> Any:
            leaves: list[Any] = [None] * layout.treedef.num_leaves
            for position, array in zip(layout.positions, arrays, strict=True):
                leaves[position] = jnp.asarray(array)
            return jax.tree_util.tree_unflatten(layout.treedef, leaves)

        def plain(arrays: Sequence[Any]) -> Any:
            return [jnp.asarray(array) for array in arrays]

        try:
            put, order = whole, tuple(int(at) for at in np.argsort(layout.positions))
            opening = init(put(zeros))
            update(put(zeros), opening, put(zeros))
        except Exception:  # what the parts of a network make of missing leaves
            put, order = plain, tuple(range(len(shapes)))
            opening = init(put(zeros))
        trial = cls(update, put, order, layout.names, shapes, main, opening)
        if not scheduled(opening):
            return trial
        ones = [np.full(shape, SMALL) for shape in shapes]
        trials = [replace(trial, count=count) for count in PINNED]
        return next((one for one in trials if np.any(one.run([ones], zeros)[0][0][main])), trials[0])

    def run(self, gradients: Sequence[list[Floats]], weights: list[Floats]) -> tuple[list[list[Floats]], Any]:
        """Updates for a sequence of gradients from the state at opening, at fixed weights; and the last state."""
        state, moved = self.opening, []
        for gradient in gradients:
            before = updates_of(state)
            for _ in range(MOST_MICRO_STEPS):
                state = state if self.count is None else _pinned(state, self.count)
                moved_by, state = self.update(self.put(gradient), state, self.put(weights))
                if before is None or updates_of(state) != before:
                    break
            moved.append(self._taken(moved_by))
        return moved, state

    def _taken(self, tree: Any) -> list[Floats]:
        """Arrays of a tree like that of the network, in the order of `names`."""
        leaves = dict(zip(self.order, jax.tree_util.tree_leaves(tree), strict=True))
        return [np.asarray(leaves[at], np.float64) for at in range(len(leaves))]

    def settings(self) -> dict[str, Any]:
        """Settings of the largest array, and what else is to be said."""
        rng = np.random.default_rng(0)
        drawn = [
            [SMALL * rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 2.0, shape) for shape in self.shapes]
            for _ in range(4)
        ]
        weights = [rng.uniform(0.5, 2.0, shape) for shape in self.shapes]
        moved, _ = self.run(drawn, weights)

        def repeats(settings: Settings, at: int) -> bool:
            formula = list(settings.updates([one[at] for one in drawn], weights[at]))
            return bool(np.allclose(formula, [one[at] for one in moved], rtol=ALIKE, atol=0))

        fits = (fit(drawn[0], weights) for fit in (self._descent, self._adam))
        settings = next((one for one in fits if one is not None and repeats(one, self.main)), None)
        names = transforms(self.opening)
        if settings is None:
            return _unnamed(names, "its updates fit neither gradient descent nor Adam")
        others = [name for at, name in enumerate(self.names) if not repeats(settings, at)]
        described = {**settings.described(), "is_known": True, "clips": self._clips(settings, drawn[0])}
        described |= {"others": others} if others else {}
        changing = scheduled(self.opening)
        if "learning_rate" in changing:
            del described["lr"]
        if changing:
            described["missing"] = (
                f"the schedule of {listed(changing)} is not in the file: record(..., learning_rate=...) at every state"
            )
        return described

    def _descent(self, gradient: list[Floats], weights: list[Floats]) -> Settings | None:
        """Gradient descent, from the echoes of one gradient, and the pull of weights without a gradient."""
        zero = [np.zeros_like(one) for one in gradient]
        g, w = gradient[self.main].flat[0], weights[self.main].flat[0]
        first, second, third = (one[self.main].flat[0] for one in self.run([gradient, zero, zero], zero)[0])
        pull, again = (one[self.main].flat[0] for one in self.run([zero, zero], weights)[0])
        momentum = third / second if second else 0.0
        ahead = bool(momentum) and not np.isclose(second, momentum * first, rtol=ALIKE)
        lr = -first / g / (1 + momentum if ahead else 1)
        if not (lr > 0 and 0 <= momentum < 1):
            return None
        decoupled = bool(pull and momentum) and bool(np.isclose(again, pull, rtol=ALIKE))
        decay = -pull / (lr * w) / (1 + momentum if ahead and not decoupled else 1)
        return Settings("SGD", lr, momentum=momentum, nesterov=ahead, weight_decay=decay, decoupled=decoupled)

    def _adam(self, gradient: list[Floats], weights: list[Floats]) -> Settings | None:
        """Adam, from its averages after one gradient, and the lengths of two first steps, lr |g| / (|g| + eps)."""
        zero = [np.zeros_like(one) for one in gradient]
        g, w = gradient[self.main].flat[0], weights[self.main].flat[0]
        (moved,), state = self.run([gradient], zero)
        (shorter,), _ = self.run([[one / 1000 for one in gradient]], zero)
        (pull,), pulled = self.run([zero], weights)
        averages, drift = self._averages(state), self._averages(pulled)
        if averages is None or drift is None:
            return None
        b1, b2 = 1 - averages[0] / g, 1 - averages[1] / g**2
        with np.errstate(divide="ignore"):
            long, short = -g / moved[self.main].flat[0], -g / 1000 / shorter[self.main].flat[0]  # (|g| + eps) / lr
        lr = 0.999 * abs(g) / (long - short)
        if not (lr > 0 and 0 <= b1 < 1 and 0 <= b2 < 1):
            return None
        decoupled = not drift[0]
        decay = -pull[self.main].flat[0] / lr / w if decoupled else drift[0] / (1 - b1) / w
        eps = max(0.0, lr * long - abs(g))
        return Settings("Adam", lr, betas=(b1, b2), eps=eps, weight_decay=decay, decoupled=bool(decoupled and decay))

    def _averages(self, state: Any) -> tuple[float, float] | None:
        """First entry of both averages of the largest array; None where the state has none, or several."""
        known = [node for node in nodes(state) if all(hasattr(node, name) for name in ("count", "mu", "nu"))]
        if len(known) != 1 or len(jax.tree_util.tree_leaves(known[0].mu)) != len(self.names):
            return None
        mu, nu = (self._taken(one)[self.main].flat[0] for one in (known[0].mu, known[0].nu))
        return float(mu), float(nu)

    def _clips(self, settings: Settings, gradient: list[Floats]) -> bool:
        """Whether large gradients come out clipped."""
        large = [one / SMALL * 1e6 for one in gradient]
        (moved,), state = self.run([large], [np.zeros_like(one) for one in gradient])
        averages, g = self._averages(state), large[self.main].flat[0]
        if settings.name == "Adam" and averages is not None:
            return not np.isclose(averages[0], (1 - settings.betas[0]) * g, rtol=ALIKE)
        (expected,) = settings.updates([large[self.main]], np.zeros_like(large[self.main]))
        return not np.allclose(moved[self.main], expected, rtol=ALIKE, atol=0)


# ------------------------------------------------------------------------------------------------ states of optax


def nodes(tree: Any) -> Iterator[Any]:
    """The states in a tree, outer ones first; arrays and the trees of weights in them are none."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields") and type(tree).__name__.endswith("State"):
        yield tree
    for child in jax.tree_util.tree_leaves(tree, is_leaf=lambda node: node is not tree):
        if child is not tree:
            yield from nodes(child)


def transforms(opt_state: Any) -> list[str]:
    """Names of the states of the transformations, in order, without those that only hold others."""
    innermost = (node for node in nodes(opt_state) if len(list(nodes(node))) == 1)
    return [name for node in innermost if (name := type(node).__name__) != "WrappedScheduleState"]


def scheduled(opt_state: Any) -> list[str]:
    """Hyper-parameters that follow a schedule."""
    names: dict[str, None] = {}
    for node in nodes(opt_state):
        names |= dict.fromkeys(getattr(node, "hyperparams_states", None) or ())
        names |= dict.fromkeys(["learning_rate"] * (type(node).__name__ == "ScaleByScheduleState"))
    return list(names)


def hyperparams(opt_state: Any) -> dict[str, float]:
    """Hyper-parameters of `optax.inject_hyperparams` by name; those of the first member where they have an axis."""
    values: dict[str, float] = {}
    for node in nodes(opt_state):
        for name, value in (getattr(node, "hyperparams", None) or {}).items():
            if np.ndim(value) <= 1 and np.size(value):
                values.setdefault(name, _short(np.ravel(np.asarray(value, np.float64))[0]))
    return values


def updates_of(opt_state: Any) -> int | None:
    """Number of updates that optax.MultiSteps has made, which counts micro-steps apart; None for other optimisers."""
    for node in nodes(opt_state):
        if hasattr(node, "gradient_step") and hasattr(node, "mini_step"):
            return int(np.max(np.asarray(node.gradient_step)))
    return None


def _pinned(tree: Any, count: int) -> Any:
    """A state whose schedules stand at a count."""
    if type(tree).__name__ in ("ScaleByScheduleState", "WrappedScheduleState"):
        return tree._replace(count=jnp.asarray(count, jnp.int32))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_pinned(child, count) for child in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(_pinned(child, count) for child in tree)
    if isinstance(tree, dict):
        return {key: _pinned(child, count) for key, child in tree.items()}
    return tree


def _short(number: float) -> float:
    """A number without the digits that rounding to float32 adds."""
    return float(f"{number:.6g}")
