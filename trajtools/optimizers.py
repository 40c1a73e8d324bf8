"""What the hyper-parameters of a run say about its optimiser: whether the weights alone are the state, and its law."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ADAPTIVE = re.compile(
    r"\b(adam\w*|nadam|radam|rmsprop|adagrad|adadelta|adafactor|lion|lamb|lars|rprop|l?bfgs|shampoo|sophia|muon)\b"
)
_MOMENTUM = re.compile(r"\bmomentum\s*[=:]\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)")
_NESTEROV = re.compile(r"\bnesterov\b(?!\s*[=:]\s*(?:false|none|0\b))")


@dataclass(frozen=True)
class Optimizer:
    r"""An optimiser as a dynamical system.

    Attributes
    ----------
    momentum : float
        Share :math:`\mu` of the last step that is made again; 0 for plain gradient descent.
    nesterov : bool
        Whether the gradient is that of the state which the momentum alone leads to.
    adaptive : str
        Name of a method whose step is no linear function of the gradient (``"adam"``, ...); empty for the others.
    """

    momentum: float = 0.0
    nesterov: bool = False
    adaptive: str = ""

    @property
    def has_buffers(self) -> bool:
        """Whether the optimiser keeps more than the weights from one step to the next."""
        return bool(self.momentum or self.nesterov or self.adaptive)

    @property
    def words(self) -> str:
        """Name for a sentence: ``"gradient descent with momentum 0.9"``."""
        if self.adaptive:
            return self.adaptive
        kind = "Nesterov momentum" if self.nesterov else "momentum"
        return f"gradient descent with {kind} {self.momentum:g}" if self.momentum else "gradient descent"


def optimizer_of(hparams: Mapping[str, Any]) -> Optimizer:
    """Read the optimiser from hyper-parameters, which are the user's own words."""
    momentum, nesterov, adaptive = 0.0, False, ""
    for key, value in _flat(hparams):
        if value is None or value is False or (isinstance(value, (int, float)) and value == 0):
            continue
        words = f"{key}={value}".lower().replace("_", " ")
        named = _ADAPTIVE.search(words)
        adaptive = adaptive or (named[1] if named else "")
        nesterov = nesterov or _NESTEROV.search(words) is not None
        said = _MOMENTUM.search(words) if isinstance(value, str) else None
        if key.lower() == "momentum" and isinstance(value, (int, float)) and not isinstance(value, bool):
            momentum = float(value)
        elif said is not None:
            momentum = float(said[1])
    return Optimizer(momentum, nesterov, adaptive)


def _flat(hparams: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in hparams.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield str(key), value
