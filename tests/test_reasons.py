"""Reasons: a documented code, a text, and the numbers in it."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

import trajtools as tt
from trajtools.reasons import CODES, Reason, codes

SOURCES = [p for tree in ("trajtools", "recorders") for p in (Path(__file__).parents[1] / tree).rglob("*.py")]


def test_a_reason_is_its_text_with_the_numbers_apart():
    reason = Reason.of("too-few-steps", "{steps:g} {unit}s are too few", steps=np.float32(3), unit="step")
    assert str(reason) == "3 steps are too few"
    assert reason.numbers == {"steps": 3.0}
    assert type(reason.numbers["steps"]) is float
    assert reason == Reason("too-few-steps", "3 steps are too few")
    assert len({reason, Reason("too-few-steps", "3 steps are too few")}) == 1
    assert codes([reason]) == ("too-few-steps",)


def test_an_undocumented_code_is_refused():
    with pytest.raises(ValueError, match="CODES"):
        Reason("no-such-code", "text")


def test_every_code_in_the_source_is_documented_and_every_documented_code_is_used():
    created, strings = set(), set()
    for path in SOURCES:
        if path.name == "reasons.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.add(node.value)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Reason", "Reason.of") and node.args:
                code = node.args[0]
                created |= {code.value} if isinstance(code, ast.Constant) else set()
    assert created <= set(CODES)
    assert set(CODES) <= strings
    assert all(code == code.lower() and " " not in code for code in CODES)


def test_a_search_in_a_reason_as_if_it_were_text_fails():
    with pytest.raises(TypeError):
        "few" in Reason("too-few-steps", "few")  # noqa: B015


def test_json_carries_code_text_and_numbers():
    short = tt.lyapunov(np.random.default_rng(0).standard_normal((80, 2)))
    (first, *_) = json.loads(short.to_json())["reasons"]
    assert first == {
        "code": "too-few-states",
        "text": str(short.reasons[0]),
        "numbers": {"states": 80, "needed": 100},
    }
