"""Which steps are stored."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from recorders import AtSteps, LogSpaced
from recorders.recorder import policy
from trajtools.errors import RecordingError


def stored(every, last):
    return [step for step in range(last + 1) if policy(every)(step)]


def test_every_k_stores_multiples_of_k():
    assert stored(3, 10) == [0, 3, 6, 9]


@given(per_decade=st.integers(1, 40), last=st.integers(0, 3000))
def test_log_spaced_stores_the_rounded_powers_and_zero(per_decade, last):
    naive = {0} | {round(10 ** (j / per_decade)) for j in range(4 * per_decade + 1)}
    assert stored(LogSpaced(per_decade), last) == sorted(step for step in naive if step <= last)


def test_log_spaced_holds_far_out():
    assert policy(LogSpaced(1))(10**12)
    assert not policy(LogSpaced(1))(10**12 + 1)


def test_at_steps_stores_what_is_listed_and_the_opening():
    assert stored(AtSteps([7, 2, 2]), 10) == [0, 2, 7]


def test_a_function_of_the_step_decides():
    assert stored(lambda step: step in (1, 4), 10) == [1, 4]


@pytest.mark.parametrize("every", [1, 3, 7, LogSpaced(4), AtSteps([0, 5, 50])])
@pytest.mark.parametrize("last", [0, 1, 6, 100])
def test_count_is_the_number_of_stored_steps(every, last):
    assert policy(every).count(last) == len(stored(every, last))


def test_count_is_unknown_where_the_training_has_no_end():
    assert policy(5).count(None) is None
    assert policy(LogSpaced(5)).count(None) is None
    assert policy(lambda step: True).count(100) is None
    assert AtSteps([3, 9]).count(None) == 3


@pytest.mark.parametrize(
    ("every", "words"),
    [
        (0, "k must be at least 1"),
        (-2, "k must be at least 1"),
        (0.5, "whole number of steps"),
        (True, "whole number of steps"),
        ("10", "whole number of steps"),
    ],
)
def test_what_is_no_policy_is_refused(every, words):
    with pytest.raises(RecordingError, match=words):
        policy(every)


def test_bad_settings_are_refused():
    with pytest.raises(RecordingError, match="per decade must be at least 1"):
        LogSpaced(0)
    with pytest.raises(RecordingError, match="step -1 is negative"):
        AtSteps([3, -1])
