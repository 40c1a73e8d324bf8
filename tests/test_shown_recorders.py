"""What a recorder and twins say of themselves at a prompt."""

from __future__ import annotations

import numpy as np
import pytest

from recorders import Recorder


def test_a_recorder_says_what_it_does(tmp_path):
    path = tmp_path / "run.h5"
    recorder = Recorder(path, {"w": np.zeros(3)}, name="lr=0.1", quiet=True)
    for value in range(4):
        recorder.record({"w": np.full(3, float(value))})
    assert repr(recorder) == f"<Recorder of run 'lr=0.1' to {str(path)!r}: 4 states up to step 3, recording>"
    recorder.close()
    assert repr(recorder).endswith("4 states up to step 3, complete>")


def test_an_interrupted_recorder_says_so(tmp_path):
    with pytest.raises(KeyboardInterrupt), Recorder(tmp_path / "run.h5", {"w": np.zeros(3)}, quiet=True) as recorder:
        raise KeyboardInterrupt
    assert "run 'run'" in repr(recorder)
    assert "1 state up to step 0, interrupted (" in repr(recorder)


def test_a_recorder_that_could_not_open_has_a_repr(tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("taken")
    recorder = Recorder.__new__(Recorder)
    assert repr(recorder) == "<Recorder, not open>"


def test_torch_twins_and_their_recorder(tmp_path):
    torch = pytest.importorskip("torch")
    from recorders.torch import Recorder, Twins

    model = torch.nn.Linear(2, 1).double()
    twins = Twins(
        model, torch.nn.functional.mse_loss, lambda p: torch.optim.SGD(p, lr=0.1), members=3, epsilon=1e-9, seed=0
    )
    assert repr(twins) == "<Twins: a reference and 3 copies, epsilon=1e-09, after 0 updates>"
    with Recorder(tmp_path / "t.h5", twins, quiet=True) as recorder:
        twins.step(torch.ones(4, 2).double(), torch.zeros(4, 1).double())
        assert "after 1 update, recorded to " in repr(twins)
        assert "2 states up to step 1, recording" in repr(recorder)
    assert repr(twins).endswith("after 1 update>")


def test_jax_twins_and_their_recorder(tmp_path):
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    from recorders.jax import Recorder, Twins

    params = {"w": jax.numpy.ones(3)}
    twins = Twins(params, lambda p, x: (p["w"] * x).sum() ** 2, optax.sgd(0.01), members=2, epsilon=1e-4, seed=0)
    assert repr(twins).startswith("<Twins: a reference and 2 copies, epsilon=0.0001, after 0 updates")
    with Recorder(tmp_path / "j.h5", twins, quiet=True) as recorder:
        twins.step(jax.numpy.ones(3))
        assert "2 states up to step 1, recording" in repr(recorder)
