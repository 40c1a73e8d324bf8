"""Buffers of the optimiser beside the weights: recorded bit for bit, resumed, and part of the state when analysed."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import trajtools as tt
from recorders import Recorder
from trajtools.errors import ArchitectureError, RecordingError
from trajtools.exponents.one_trajectory import full_state
from trajtools.wiring import Member, Parameter

pytestmark = pytest.mark.recorders


def descended(steps, seed=0):
    """Weights and momenta of gradient descent on a quartic, state by state."""
    rng = np.random.default_rng(seed)
    w = {"w": rng.standard_normal((3, 4)), "b": rng.standard_normal(4)}
    m = {f"{name}.momentum_buffer": np.zeros_like(values) for name, values in w.items()}
    found = []
    for _ in range(steps):
        found.append(({n: v.copy() for n, v in w.items()}, {n: v.copy() for n, v in m.items()}))
        for now, buffer in zip(w.values(), m.values(), strict=True):
            buffer[:] = 0.9 * buffer + now**3 - now
            now[:] -= 0.05 * buffer
    return found


def flat(arrays):
    return np.concatenate([values.ravel() for values in arrays.values()])


def check(path, wanted):
    with tt.open(path) as run:
        assert_array_equal(run.states[:, 0], np.stack([flat(w) for w, _ in wanted]))
        assert_array_equal(run.optimizer[:, 0], np.stack([flat(m) for _, m in wanted]))
        assert [p.name for p in run.optimizer_parameters] == list(wanted[0][1])
    assert not tt.validate(path)


@pytest.mark.parametrize("options", [{}, {"compress": "gzip"}, {"writer": "direct"}, {"flush_seconds": 1e-4}])
def test_buffers_are_recorded_bit_for_bit_beside_the_weights(tmp_path, options):
    states = descended(150)
    with Recorder(tmp_path / "a.h5", states[0][0], buffers=states[0][1], quiet=True, **options) as rec:
        for w, m in states:
            rec.record(w, buffers=m, loss=1.0)
    assert rec.n_recorded == 150
    assert rec.forecast.bytes_per_state >= 2 * 16 * 8
    check(tmp_path / "a.h5", states)
    with tt.open(tmp_path / "a.h5") as run:
        assert run.optimizer_parameters[1] == Parameter("b.momentum_buffer", "other", (4,), "float64", 12, 4)


def test_advance_and_blocks_take_buffers_as_well(tmp_path):
    states = descended(80)
    with Recorder(tmp_path / "a.h5", states[0][0], buffers=states[0][1], quiet=True) as rec:
        rec.advance(states[1][0], buffers=states[1][1])
        for part in (states[2:20], states[20:]):
            w, m = ({n: np.stack([s[i][n] for s in part]) for n in part[0][i]} for i in (0, 1))
            rec.record_block(w, buffers=m)
    check(tmp_path / "a.h5", states)


@pytest.mark.parametrize("cut", [20, 64, 90])
def test_a_resumed_run_goes_on_with_its_buffers(tmp_path, cut):
    states = descended(120)
    for part in (states[:cut], states[cut - 1 :]):
        with Recorder(tmp_path / "a.h5", part[0][0], buffers=part[0][1], resume=True, quiet=True) as rec:
            for w, m in part:
                rec.record(w, buffers=m)
    assert rec.step == 119
    check(tmp_path / "a.h5", states)


def test_other_buffers_make_another_state_when_a_run_goes_on(tmp_path):
    w, m = descended(1)[0]
    Recorder(tmp_path / "a.h5", w, buffers=m, quiet=True).close()
    other = {name: values + 1 for name, values in m.items()}
    with Recorder(tmp_path / "a.h5", w, buffers=other, resume=True, quiet=True) as rec:
        assert rec.step == 1
    check(tmp_path / "a.h5", [(w, m), (w, other)])
    for buffers, words in ((None, "2 optimiser buffers in the file, 0 now"), ({"x": np.ones(3)}, "in the file, 1 now")):
        with pytest.raises(ArchitectureError, match=words):
            Recorder(tmp_path / "a.h5", w, buffers=buffers, resume=True, quiet=True)


@pytest.mark.parametrize("stacked", [True, False])
def test_members_have_buffers_of_their_own(tmp_path, stacked):
    networks = [descended(10, seed) for seed in range(3)]
    table = [Member("a"), Member("b", 0), Member("c", 0)]

    def at(t, i):
        each = [networks[k][t][i] for k in range(3)]
        return {n: np.stack([one[n] for one in each]) for n in each[0]} if stacked else each

    with Recorder(tmp_path / "a.h5", at(0, 0), buffers=at(0, 1), members=table, quiet=True) as rec:
        for t in range(10):
            rec.record(at(t, 0), buffers=at(t, 1))
    with tt.open(tmp_path / "a.h5") as run:
        for k, network in enumerate(networks):
            assert_array_equal(run.optimizer.read(slice(None))[:, k], [flat(m) for _, m in network])


def test_buffers_have_a_dtype_of_their_own(tmp_path):
    w = {"w": np.ones(5, np.float16)}
    m = {"w.sum": np.full(5, 1 / 3, np.float64), "w.scale": np.ones((), np.float32)}
    with Recorder(tmp_path / "a.h5", w, buffers=m, quiet=True):
        pass
    with tt.open(tmp_path / "a.h5") as run:
        assert run.dtype == np.float16
        assert run.optimizer.dtype == np.float64
        assert_array_equal(run.optimizer.read(slice(None))[0, 0], [1 / 3] * 5 + [1])


def test_buffers_that_fail_or_come_unasked_are_told(tmp_path):
    w, m = descended(1)[0]
    with Recorder(tmp_path / "a.h5", w, buffers=m, strict=True, quiet=True) as rec:
        with pytest.raises(RecordingError, match=r"records the buffers 'w.momentum_buffer', .* pass buffers="):
            rec.record(w)
        with pytest.raises(RecordingError, match="without a state"):
            rec.record(buffers=m)
        with pytest.raises(ArchitectureError, match=r"lacks 'b.momentum_buffer'"):
            rec.record(w, step=1, buffers={"w.momentum_buffer": m["w.momentum_buffer"]})
        with pytest.raises(RecordingError, match="mapping name -> array"):
            rec.record(w, step=1, buffers=3)
    with Recorder(tmp_path / "b.h5", w, buffers={}, quiet=True) as rec:
        rec.record(w, buffers={})
        with pytest.raises(RecordingError, match="opened without buffers"):
            rec.record(w, buffers=m)
    with tt.open(tmp_path / "b.h5") as run:
        assert run.optimizer is None
    with pytest.raises(RecordingError, match="stored with the weights"):
        Recorder(tmp_path / "c.h5", w, buffers=m, store="sketch", quiet=True)
    assert not (tmp_path / "c.h5").exists()


def test_buffers_are_joined_to_the_parameter_whose_whole_name_they_hold(tmp_path):
    """The name "b" is in "w.momentum_buffer" as well."""
    states = descended(70)
    with Recorder(tmp_path / "a.h5", states[0][0], buffers=states[0][1], quiet=True) as rec:
        for w, m in states:
            rec.record(w, buffers=m)
    with tt.open(tmp_path / "a.h5") as run:
        joined, settings = full_state(run)
    assert set(settings["buffer_scales"]) == {"momentum_buffer"}
    wanted = np.stack([flat(m) for _, m in states]) * settings["buffer_scales"]["momentum_buffer"]
    assert_array_equal(np.asarray(joined)[:, 16:], wanted)
