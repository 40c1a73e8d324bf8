"""Buffers of the network itself: beside the state on request, never in it."""

import numpy as np
import pytest

import trajtools as tt
from trajtools.errors import ArchitectureError, RecordingError

pytestmark = pytest.mark.recorders


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def trained(torch, path, steps, model=None, **options):
    """Train a network with running statistics; return it and the snapshots of both."""
    from recorders.torch import Recorder

    torch.manual_seed(0)
    model = model or torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    optimizer, seen = torch.optim.Adam(model.parameters(), lr=0.1), []

    def see():
        parameters = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
        seen.append((parameters, np.concatenate([model[1].running_mean.numpy(), model[1].running_var.numpy()])))

    see()
    with Recorder(path, model, optimizer=optimizer, quiet=True, **options) as rec:
        for i in range(steps):
            model(torch.randn(8, 3) + i).square().mean().backward()
            rec.record(number=i)
            optimizer.step()
            see()
    return model, seen


@pytest.mark.torch
@pytest.mark.parametrize("buffers", [False, True])
def test_running_statistics_are_recorded_beside_the_state(tmp_path, torch, buffers):
    _, seen = trained(torch, tmp_path / "a.h5", 70, model_buffers=True, buffers=buffers)
    with tt.open(tmp_path / "a.h5") as run:
        assert [p.name for p in run.buffer_parameters] == ["1.running_mean", "1.running_var"]
        assert "1.running_mean" not in [p.name for p in run.parameters]
        np.testing.assert_array_equal(run.states[:, 0], [one for one, _ in seen])
        np.testing.assert_array_equal(run.buffers[:, 0], [one for _, one in seen])
        assert (run.optimizer is not None) == buffers
    assert tt.validate(tmp_path / "a.h5") == []
    tt.repair(tmp_path / "a.h5", salvage=tmp_path / "b.h5")
    with tt.open(tmp_path / "a.h5") as run, tt.open(tmp_path / "b.h5") as other:
        np.testing.assert_array_equal(other.buffers.read(), run.buffers.read())


@pytest.mark.torch
def test_a_run_with_statistics_is_resumed(tmp_path, torch):
    path = tmp_path / "a.h5"
    model, first = trained(torch, path, 5, model_buffers="*running*")
    _, then = trained(torch, path, 3, model, model_buffers="*running*", resume=True)
    with tt.open(path) as run:
        assert run.step.tolist() == list(range(9))
        np.testing.assert_array_equal(run.buffers[:, 0], [one for _, one in first + then[1:]])
    with pytest.raises(ArchitectureError, match="2 buffers in the file, 0 now"):
        trained(torch, path, 1, model, resume=True)


@pytest.mark.torch
def test_what_has_no_buffers_records_none_and_where_they_cannot_be_kept_it_is_said(tmp_path, torch):
    from recorders.torch import Recorder

    with Recorder(tmp_path / "a.h5", torch.nn.Linear(2, 1), model_buffers=True, quiet=True):
        pass
    with tt.open(tmp_path / "a.h5") as run:
        assert run.buffers is None
        assert run.buffer_parameters == ()
    with pytest.raises(RecordingError, match="model_buffers= are stored with the weights"):
        trained(torch, tmp_path / "b.h5", 1, model_buffers=True, store="sketch")


@pytest.mark.jax
def test_statistics_of_nnx_are_recorded_beside_the_state(tmp_path):
    jax, nnx = pytest.importorskip("jax"), pytest.importorskip("flax.nnx")
    from recorders.jax import Recorder

    model = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    wanted = []
    with Recorder(tmp_path / "a.h5", model, model_buffers=True, quiet=True) as rec:
        for number in range(3):
            rec.record(model, step=number)
            wanted.append(np.concatenate([np.asarray(model.mean[...]), np.asarray(model.var[...])]))
            model(jax.numpy.arange(12.0).reshape(4, 3) + number)
    with tt.open(tmp_path / "a.h5") as run:
        assert [p.name for p in run.buffer_parameters] == ["mean", "var"]
        assert [p.name for p in run.parameters] == ["bias", "scale"]
        np.testing.assert_array_equal(run.buffers[:, 0], wanted)
    with pytest.raises(ArchitectureError, match=r"no floating-point variables of flax\.nnx beside"):
        Recorder(tmp_path / "b.h5", {"w": jax.numpy.ones(3)}, model_buffers=True, quiet=True)
