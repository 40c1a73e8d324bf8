"""The callbacks of all trainers alike: states, steps and losses are the trainer's, its training is as without them."""

import importlib
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_training import flat  # noqa: E402
from trainer_runs import MAKERS, QUIET, assert_as_seen, contents, reference_losses  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders import RecordingWarning  # noqa: E402
from trajtools.errors import MissingDependencyError, RecordingError  # noqa: E402
from trajtools.store import validate  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.recorders, *QUIET]


@pytest.fixture(scope="module", params=list(MAKERS))
def trainer(request):
    return MAKERS[request.param]()


def callback(trainer, kind, path, **options):
    return getattr(trainer, kind)(path, **options)


@pytest.mark.parametrize(
    ("kind", "accumulate"), [("RecorderCallback", 1), ("RecorderCallback", 3), ("TwinsCallback", 3)]
)
def test_states_steps_and_losses_are_the_trainers_and_the_training_is_as_without(tmp_path, trainer, kind, accumulate):
    options = {"accumulate": accumulate, "clip": 0.5}
    seen, net = trainer.Snapshots(), trainer.model()
    trainer.train(tmp_path, seen, callback(trainer, kind, tmp_path / "run.h5"), net=net, **options)
    noise = torch.rand(3)
    assert_as_seen(tmp_path / "run.h5", seen)
    _, steps, metrics, status = contents(tmp_path / "run.h5")
    assert steps == list(range(7))
    assert status == "complete"
    np.testing.assert_allclose(reference_losses(metrics), [*seen.losses.values(), np.nan], rtol=1e-6)
    other = trainer.model()
    trainer.train(tmp_path, net=other, **options)
    np.testing.assert_array_equal(flat(other), flat(net))
    assert torch.equal(noise, torch.rand(3))


@pytest.mark.parametrize(
    ("kind", "checkpoint"), [("RecorderCallback", 4), ("RecorderCallback", 7), ("TwinsCallback", 4)]
)
def test_a_training_that_failed_resumes_at_its_place(tmp_path, trainer, kind, checkpoint):
    seen, path = trainer.Snapshots(), tmp_path / "run.h5"
    with pytest.raises(RuntimeError, match="the machine went away"):
        trainer.train(tmp_path, seen, callback(trainer, kind, path), trainer.Failing(7), steps=10, save=True)
    assert_as_seen(path, seen)
    _, steps, _, status = contents(path)
    assert (steps, status) == (list(range(8)), "interrupted")
    # The loader of Lightning begins again, so steps after the checkpoint see other batches than the first time.
    resumed = callback(trainer, kind, path, resume=True)
    trainer.train(tmp_path, seen, resumed, steps=10, save=True, resume=checkpoint)
    assert not validate(path)
    assert_as_seen(path, seen)
    _, steps, metrics, status = contents(path)
    assert (steps, status) == (list(range(11)), "complete")
    np.testing.assert_allclose(reference_losses(metrics), [*dict(sorted(seen.losses.items())).values(), np.nan], 1e-6)
    with tt.open(path) as run:
        if kind == "TwinsCallback":  # copies are in no checkpoint: they begin anew
            assert run.plantings["step"].tolist() == [0, 0, checkpoint + 1, checkpoint + 1]
            assert len(set(run.plantings["seed"].tolist())) == 2
            assert len(np.unique(tt.twins(run).start)) == 2


def test_a_training_that_does_not_continue_the_run_is_refused(tmp_path, trainer):
    trainer.train(tmp_path, trainer.RecorderCallback(tmp_path / "run.h5"), steps=4)
    resumed = trainer.RecorderCallback(tmp_path / "run.h5", resume=True)
    with pytest.raises(RecordingError, match=r"begins again at step 0.*mode='next'"):
        trainer.train(tmp_path, resumed)
    other = trainer.model()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(RecordingError, match=r"another state for that step.*mode='next'"):
        trainer.train(tmp_path, resumed, net=other)
    assert contents(tmp_path / "run.h5")[1] == list(range(5))


def test_a_second_training_takes_the_next_name_or_overwrites(tmp_path, trainer):
    kind = "TwinsCallback"
    once = callback(trainer, kind, tmp_path / "run.h5")
    trainer.train(tmp_path, once, steps=2)
    with pytest.raises(FileExistsError, match=rf"mode='next'.*mode='w'.*{kind}\(path"):
        trainer.train(tmp_path, once, steps=3)
    again = callback(trainer, kind, tmp_path / "run.h5", mode="next")
    for steps in (1, 2):
        trainer.train(tmp_path, again, steps=steps)
    trainer.train(tmp_path, callback(trainer, kind, tmp_path / "run.h5", mode="w"), steps=3)
    assert [len(contents(tmp_path / f"{name}.h5")[1]) for name in ("run", "run-2", "run-3")] == [4, 2, 3]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_exact_copies_take_the_trainers_own_steps_to_the_bit(tmp_path, trainer, accumulate):
    """Dropout masks, clipping, accumulation and schedules are those of the training."""
    exact = trainer.TwinsCallback(tmp_path / "run.h5", epsilon=0.0)
    warm_up = {"net": trainer.model(warm_up=True)} if trainer.name == "lightning" else {"warmup_steps": 2}
    trainer.train(tmp_path, exact, accumulate=accumulate, clip=0.1, steps=8, **warm_up)
    with tt.open(tmp_path / "run.h5") as run:
        states = run.states[:]
        losses = run.metrics["loss"][:-1]
    assert (states[2:, 0] != states[1:-1, 0]).any()
    np.testing.assert_array_equal(states[:, 1:], states[:, :1].repeat(2, 1))
    np.testing.assert_array_equal(losses[:, 1:], losses[:, :1].repeat(2, 1))


def test_twins_are_planted_anew_and_analysed(tmp_path, trainer):
    path = tmp_path / "run.h5"
    trainer.train(tmp_path, trainer.TwinsCallback(path, replant=10, members=3, buffers=True), steps=35)
    assert not validate(path)
    with tt.open(path) as run:
        assert sorted(set(run.plantings["step"].tolist())) == [0, 10, 20, 30]
        gaps = np.linalg.norm(run.states[:][run.plantings["step"], run.plantings["member"]] - run.states[:][
            run.plantings["step"], 0], axis=1)  # fmt: skip
        np.testing.assert_allclose(gaps, run.plantings["norm"], rtol=1e-4)
        buffers = run.optimizer[:][10]
        np.testing.assert_array_equal(buffers[1:], buffers[:1].repeat(3, 0))
        assert len(np.unique(tt.twins(run).start)) == 4


def test_distances_take_one_number_a_copy(tmp_path, trainer):
    path = tmp_path / "run.h5"
    trainer.train(tmp_path, trainer.TwinsCallback(path, store="distances", metric="l2", every=2), steps=8)
    with tt.open(path) as run:
        assert run.distances.shape == (5, 3)
        np.testing.assert_allclose(run.distances[0, 1:], run.plantings["norm"][:2], rtol=1e-6)


def test_twins_that_cannot_be_trained_end_the_recording_and_not_the_training(tmp_path, trainer):
    class Original:
        """Counts what is deep-copied, and lets only the original train on."""

        is_copy = False

        def __deepcopy__(self, memo):
            copy = Original()
            copy.is_copy = True
            return copy

    net, seen = trainer.model(), trainer.Snapshots()
    mark = net.mark = Original()

    def refuse(module, *arguments):
        calls.append(module.mark.is_copy)
        if module.mark.is_copy and len(calls) > 6:
            raise MemoryError("no room for copies")

    calls = []
    layer = next(module for module in net.modules() if isinstance(module, torch.nn.Linear | torch.nn.Embedding))
    layer.mark = mark
    layer.register_forward_pre_hook(refuse)
    with pytest.warns(RecordingWarning, match="the twins could not be trained: MemoryError: no room for copies"):
        trainer.train(tmp_path, seen, trainer.TwinsCallback(tmp_path / "run.h5"), net=net)
    assert len(seen.states) == 7
    other = trainer.model()
    trainer.train(tmp_path, net=other)
    np.testing.assert_array_equal(flat(other), flat(net))
    states, steps, _, _ = contents(tmp_path / "run.h5")
    assert steps == [0, 1]
    np.testing.assert_array_equal(states, [seen.states[step] for step in steps])


def test_a_probe_is_recorded_and_an_error_of_it_is_a_warning(tmp_path, trainer):
    def probe(model, batch):
        torch.rand(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        calls.append(model)
        return {"h_max_batch": 3.0}

    calls = []
    net = trainer.model()
    recorder = trainer.RecorderCallback(tmp_path / "run.h5", probe=probe, probe_every=2)
    with pytest.warns(RecordingWarning, match="the probe failed at step 4: ZeroDivisionError"):
        trainer.train(tmp_path, recorder, net=net)
    assert np.flatnonzero(np.isfinite(contents(tmp_path / "run.h5")[2]["h_max_batch"])).tolist() == [0, 2]
    other = trainer.model()
    trainer.train(tmp_path, net=other)
    np.testing.assert_array_equal(flat(other), flat(net))


def test_numbers_of_twins_stand_in_the_file_of_tensorboard(tmp_path, trainer):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    twins = trainer.TwinsCallback(tmp_path / "run.h5", probe=lambda *_: {"h_max_batch": 3.0}, probe_every=4)
    options = {"report_to": ["tensorboard"]}
    if trainer.name == "lightning":
        options = {"logger": trainer.module.pytorch.loggers.TensorBoardLogger(tmp_path)}
    trainer.train(tmp_path, twins, steps=8, log_every=4, **options)
    folders = {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(min(folders, key=lambda path: len(path.parts))))
    events.Reload()
    prefix = "train/" if trainer.name == "huggingface" else ""
    shown = {name: events.Scalars(f"{prefix}{name}") for name in ("twin_distance", "twin_exponent", "h_max_batch")}
    assert all([event.step for event in each] == [4, 8] for each in shown.values())
    with tt.open(tmp_path / "run.h5") as run:
        states = run.states[:].astype(float)
    for event in shown["twin_distance"]:
        gaps = np.linalg.norm(states[event.step, 1:] - states[event.step, 0], axis=1)
        assert event.value == pytest.approx(np.exp(np.log(gaps).mean()), rel=1e-4)
    assert [event.value for event in shown["h_max_batch"]] == [3.0, 3.0]


def test_numbers_of_twins_stand_in_the_files_of_mlflow(tmp_path, trainer, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())  # of this process, whatever a test before has left
    options = {"report_to": ["mlflow"]}
    if trainer.name == "lightning":
        logger = trainer.module.pytorch.loggers.MLFlowLogger(tracking_uri=(tmp_path / "mlruns").as_uri())
        options = {"logger": logger}
    trainer.train(tmp_path, trainer.TwinsCallback(tmp_path / "run.h5"), steps=8, log_every=4, **options)
    (path,) = (tmp_path / "mlruns").rglob("twin_distance")  # of transformers, below train/
    rows = [line.split() for line in path.read_text().splitlines()]  # time, value, step
    assert [int(step) for _, _, step in rows] == [4, 8]
    with tt.open(tmp_path / "run.h5") as run:
        states = run.states[:].astype(float)
    for _, value, step in rows:
        gaps = np.linalg.norm(states[int(step), 1:] - states[int(step), 0], axis=1)
        assert float(value) == pytest.approx(np.exp(np.log(gaps).mean()), rel=1e-4)


@pytest.mark.parametrize("name", ["lightning", "huggingface"])
def test_a_missing_framework_is_named(name, monkeypatch):
    for package in ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"recorders.{name}", raising=False)
    module = importlib.import_module(f"recorders.{name}")
    with pytest.raises(MissingDependencyError, match="pip install"):
        module.RecorderCallback  # noqa: B018
