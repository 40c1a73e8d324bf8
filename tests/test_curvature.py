"""Recorded curvature against the learning rate: thresholds, entry into the edge of stability, agreement."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import call

import trajtools as tt
from recorders import Recorder
from trajtools.errors import DataError, SelectionError
from trajtools.reasons import codes
from trajtools.store import RunSpec, RunWriter
from trajtools.wiring import Member, Parameter


def write(path, h_max, *, hparams=None, name="h_max_full", **metrics):
    """A run with this curvature at every step."""
    with Recorder(path, {"w": np.zeros(2)}, hparams={"lr": 0.1} if hparams is None else hparams, quiet=True) as rec:
        for t, value in enumerate(h_max):
            more = {key: float(series[t]) for key, series in metrics.items()}
            rec.record({"w": np.full(2, float(t))}, step=t, **{name: float(value)}, **more)
    return path


def measured(path, **options):
    with tt.open(path) as run:
        return tt.training.curvature(run, **options)


def rising(level, steps=400, at=100, noise=0.02):
    """Curvature that rises to 1 / rate times a level and hovers there."""
    rng = np.random.default_rng(0)
    path = np.concatenate([np.linspace(0.2, 1.02, at), np.full(steps - at, 1.0)]) * level / 0.1
    return path * (1 + noise * rng.standard_normal(steps) * (np.arange(steps) >= at))


def test_the_entry_into_the_edge_of_stability_is_found(tmp_path):
    found = measured(write(tmp_path / "a.h5", rising(2.0)))
    assert found.verdict == "at the edge"
    assert 95 <= found.entry <= 101
    assert found.after == pytest.approx(2.0, abs=0.01)
    low, high = found.after_interval
    assert low <= 2.0 <= high


@pytest.mark.parametrize(
    ("hparams", "threshold"),
    [
        ({"lr": 0.1}, 2.0),
        ({"lr": 0.1, "momentum": 0.9}, 3.8),
        ({"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}, 3.8 / 2.8),
        ({"lr": 0.1, "optimizer": "sgd", "weight_decay": 2.0}, 1.8),
        ({"lr": 0.1, "optimizer": "full-batch gradient descent"}, 2.0),  # as the demo names it
    ],
)
def test_the_threshold_is_that_of_the_optimiser(tmp_path, hparams, threshold):
    found = measured(write(tmp_path / "a.h5", rising(threshold), hparams=hparams))
    assert found.threshold == pytest.approx(threshold)
    assert found.verdict == "at the edge"
    # A quadratic that is trained at just this curvature neither grows nor shrinks.
    h, beta = threshold / 0.1 + hparams.get("weight_decay", 0.0), hparams.get("momentum", 0.0)
    if hparams.get("nesterov"):
        step = np.array([[1 + beta - 0.1 * h * (1 + beta), -beta * (1 - 0.1 * h)], [1, 0]])
    else:
        step = np.array([[1 + beta - 0.1 * h, -beta], [1, 0]])
    assert np.abs(np.linalg.eigvals(step)).max() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("hparams", "name", "threshold"),
    [
        ({"lr": 0.1, "optimizer": "Adam", "betas": [0.9, 0.999]}, "preconditioned_h_max_full", 38.0),
        ({"lr": 0.1, "optimizer": "adam", "betas": [0.9, 0.999]}, "h_max_full", None),  # no preconditioner
        ({"lr": 0.1, "optimizer": "adam"}, "preconditioned_h_max_full", None),  # beta_1 is unknown
        ({"lr": 0.1, "optimizer": "Adam", "betas": [0.9, 0.999], "weight_decay": 0.1}, "h_max_full", None),
        ({"lr": 0.1, "optimizer": "LBFGS"}, "h_max_full", None),
        ({"lr": 0.1}, "preconditioned_h_max_full", None),  # an optimiser of JAX: the recorder does not see it
    ],
)
def test_adaptive_optimisers_have_a_threshold_in_units_of_their_preconditioner_only(tmp_path, hparams, name, threshold):
    found = measured(write(tmp_path / "a.h5", rising(threshold or 2.0), hparams=hparams, name=name))
    assert np.isnan(found.predicted).all()
    if threshold:
        assert found.threshold == pytest.approx(threshold)
        assert (found.verdict, found.sources["h_max"]) == ("at the edge", name)
    else:
        assert np.isnan(found.threshold)
        assert (found.verdict, codes(found.reasons)) == ("inconclusive", ("no-threshold",))
        assert "nan" not in str(found)
        found.plot()


@pytest.mark.torch
def test_the_optimiser_is_read_from_the_recorder_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    from recorders.torch import Recorder as TorchRecorder

    def threshold(name, optimizer, **settings):
        model = torch.nn.Linear(1, 1)
        stepped = optimizer([{"params": model.parameters(), "name": "all"}], lr=0.1, **settings)
        with TorchRecorder(
            tmp_path / "a.h5", model, optimizer=stepped, hparams={"lr": 0.1}, mode="w", quiet=True
        ) as rec:
            for _ in range(12):
                stepped.step()
                rec.record(**{name: 1.0})
        return measured(tmp_path / "a.h5").threshold

    class Mine(torch.optim.Adam):
        pass

    assert threshold("h_max_full", torch.optim.SGD, momentum=0.9) == pytest.approx(3.8)
    assert threshold("preconditioned_h_max_full", Mine) == pytest.approx(38.0)
    assert threshold("preconditioned_h_max_full", torch.optim.AdamW, weight_decay=1.0) == pytest.approx(1.9 * 19)
    assert np.isnan(threshold("h_max_full", Mine))


@pytest.mark.parametrize(("level", "verdict"), [(1.0, "below the edge"), (3.0, "beyond the edge")])
def test_other_levels_are_said(tmp_path, level, verdict):
    assert measured(write(tmp_path / "a.h5", rising(level))).verdict == verdict


def test_a_visit_to_the_threshold_is_no_edge(tmp_path):
    visit = np.concatenate([np.full(150, 10.0), np.full(5, 21.0), np.full(150, 10.0)])
    assert measured(write(tmp_path / "a.h5", visit)).verdict == "below the edge"


@pytest.mark.parametrize("after", [0, 5, 40])
def test_a_threshold_reached_shortly_before_the_end_is_inconclusive(tmp_path, after):
    h_max = np.concatenate([np.linspace(2.0, 19.0, 190), np.full(5, 21.0), np.full(after, 14.0)])
    found = measured(write(tmp_path / "a.h5", h_max))
    assert (found.verdict, codes(found.reasons)) == ("inconclusive", ("threshold-reached-late",))
    assert "record longer" in str(found.reasons[0])
    assert found.reasons[0].numbers["step"] == 190
    assert found.reasons[0].numbers["after"] == after


def test_a_sharp_start_is_no_entry(tmp_path):
    start = np.linspace(26, 8, 60)
    found = measured(write(tmp_path / "a.h5", np.concatenate([start, rising(2.0)])))
    assert found.verdict == "at the edge"
    assert 155 <= found.entry <= 161


def test_too_little_is_inconclusive(tmp_path):
    found = measured(write(tmp_path / "a.h5", [10.0, np.nan, 12.0]))
    assert found.verdict == "inconclusive"
    assert [one.numbers["unknown"] for one in found.warnings if one.code == "not-finite"] == [1]


def test_the_predicted_exponent_is_that_of_the_multipliers(tmp_path):
    rng = np.random.default_rng(1)
    high, low = rng.uniform(1, 30, 200), rng.uniform(-5, 0.5, 200)
    truth = [max(np.log(abs(1 - 0.1 * a)), np.log(abs(1 - 0.1 * b))) for a, b in zip(low, high, strict=True)]
    found = measured(write(tmp_path / "a.h5", high, h_min_full=low, shadow_growth_full=truth))
    assert found.predicted == pytest.approx(truth)
    assert found.agreement == pytest.approx(1.0)
    assert found.sources == {"h_max": "h_max_full", "h_min": "h_min_full", "growth": "shadow_growth_full"}
    assert np.isnan(measured(tmp_path / "a.h5", momentum=0.5).predicted).all()


def test_a_recorded_rate_is_used_where_there_is_one(tmp_path):
    rate = np.linspace(0.1, 0.2, 50)
    found = measured(write(tmp_path / "a.h5", np.full(50, 5.0), learning_rate=rate))
    assert found.product == pytest.approx(5 * rate)
    assert measured(tmp_path / "a.h5", rate=0.3).product == pytest.approx(1.5)


def test_what_is_missing_is_said(tmp_path):
    path = write(tmp_path / "a.h5", np.ones(20), name="loss")
    with pytest.raises(SelectionError, match="loss"):
        measured(path)
    path = write(tmp_path / "b.h5", np.ones(20), hparams={"epochs": 3})
    with pytest.raises(DataError, match="no learning rate"):
        measured(path)
    with pytest.raises(SelectionError, match="batch"):
        measured(path, of="batch")
    with pytest.raises(DataError, match="momentum"):
        measured(path, rate=0.1, momentum=1.5)
    table = [Parameter("w", "other", (2,), "float64", 0, 2)]
    RunWriter.create(tmp_path / "c.h5", RunSpec(parameters=table, members=[Member("m")], dtype="float64")).close()
    with pytest.raises(DataError, match="has no states"):
        measured(tmp_path / "c.h5")


def test_the_whole_set_goes_before_batches_and_lanczos_before_shadows(tmp_path):
    path = write(tmp_path / "a.h5", np.ones(20), name="shadow_h_max_batch", h_max_batch=np.full(20, 2.0))
    assert measured(path).sources["h_max"] == "h_max_batch"
    assert "batch-curvature" in codes(measured(path).warnings)


@pytest.mark.parametrize(("factor", "source"), [(1.02, "shadow_h_max_full"), (1.5, "h_max_full")])
def test_a_shadow_known_at_more_states_stands_for_lanczos_if_they_agree(tmp_path, factor, source):
    h_max = rising(5.0)
    seldom = np.where(np.arange(len(h_max)) % 50 == 0, h_max, np.nan)
    path = write(tmp_path / "run.h5", seldom, shadow_h_max_full=factor * h_max)
    found = measured(path)
    assert found.sources["h_max"] == source
    said = [warning for warning in found.warnings if warning.code == "shadow-curvature"]
    assert [round(warning.numbers["difference"], 9) for warning in said] == ([0.02] if factor < 1.1 else [])


def passage(at, begins, level=0.1, threshold=2.0, steps=300):
    """Rate x h_max a tenth above the threshold from step `at` on, and a shadow that grows from `begins` on."""
    t = np.arange(steps)
    h_max = np.where(t < at, 0.9, 1 + level) * threshold / 0.1
    return h_max, np.where(t < begins, -0.01, 0.3)


@pytest.mark.parametrize(
    ("hparams", "threshold", "step"),
    [
        ({"lr": 0.1}, 2.0, lambda p: [[1 - p]]),
        ({"lr": 0.1, "momentum": 0.9}, 3.8, lambda p: [[1.9 - p, -0.9], [1, 0]]),
        (
            {"lr": 0.1, "momentum": 0.9, "nesterov": True},
            3.8 / 2.8,
            lambda p: [[1.9 * (1 - p), -0.9 * (1 - p)], [1, 0]],
        ),
    ],
)
def test_a_shadow_that_grows_late_is_said_to_with_the_nats_it_missed(tmp_path, hparams, threshold, step):
    h_max, growth = passage(100, 200, threshold=threshold)
    found = measured(write(tmp_path / "a.h5", h_max, hparams=hparams, shadow_growth_full=growth))
    (words,) = (one.text for one in found.warnings if one.code == "delayed-loss-of-stability")
    rate = np.log(np.abs(np.linalg.eigvals(np.array(step(1.1 * threshold)))).max())
    nats, begins = 103 * rate, 203  # the first nat takes four steps of 0.3
    assert f"from step 100 on, {nats:.0f} nats of growth before step {begins}" in words


@pytest.mark.parametrize(
    ("at", "begins", "name"),
    [
        (100, 103, "shadow_growth_full"),  # at once
        (0, 0, "shadow_growth_full"),  # from the beginning
        (
            100,
            300,
            "shadow_growth_full",
        ),  # never: at the edge of stability nothing need grow
        (300, 200, "shadow_growth_full"),  # the curvature does not pass the threshold
        (100, 200, "shadow_growth_batch"),  # each batch has a Hessian of its own
    ],
)
def test_other_growth_is_not_called_late(tmp_path, at, begins, name):
    h_max, growth = passage(at, begins)
    found = measured(write(tmp_path / "a.h5", h_max, **{name: growth}))
    assert "delayed-loss-of-stability" not in codes(found.warnings)
    assert "delayed-loss-of-stability" not in codes(measured(write(tmp_path / "b.h5", h_max)).warnings)


def test_what_is_not_finite_hides_no_late_growth(tmp_path):
    h_max, growth = passage(100, 200)
    growth[[0, 120]], growth[-1], h_max[[50, -1]] = np.nan, -np.inf, np.inf
    found = measured(write(tmp_path / "a.h5", h_max, shadow_growth_full=growth))
    assert any("from step 100 on, 19 nats of growth before step 203" in words.text for words in found.warnings)


def test_late_growth_is_seen_in_a_thinned_record_with_gaps_and_on_the_page(tmp_path):
    h_max, growth = passage(100, 200)
    path = tmp_path / "a.h5"
    with Recorder(path, {"w": np.zeros(2)}, hparams={"lr": 0.1}, quiet=True) as rec:
        for t in range(0, 300, 5):
            known = {"h_max_full": h_max[t] if t % 25 == 0 else np.nan, "shadow_growth_full": growth[t]}
            rec.record({"w": np.full(2, float(t))}, step=t, **known)
    assert any("from step 100 on, 18 nats of growth before step 200" in words.text for words in measured(path).warnings)
    call("report", path, "-o", tmp_path / "a.html")
    assert "delayed loss of stability" in (tmp_path / "a.html").read_text(encoding="utf-8")


def ended(path, h_max, *, end, every=1, broken=np.nan, **options):
    """A run whose weights are not finite from a state on, with curvature at every so many states before."""
    with Recorder(path, {"w": np.zeros(2)}, hparams={"lr": 0.1}, quiet=True) as rec:
        for t, value in enumerate(h_max):
            known = {"h_max_full": float(value) if t < end and t % every == 0 else np.nan}
            weights = np.full(2, float(t) if t < end else broken)
            rec.record({"w": weights}, step=t, **known, **{k: float(v[t]) for k, v in options.items()})
    return path


def test_a_training_that_diverges_through_the_edge_is_said_to(tmp_path):
    h_max = np.concatenate([np.linspace(2.0, 15.0, 80), np.linspace(21.0, 60.0, 20), np.zeros(5)])
    found = measured(ended(tmp_path / "a.h5", h_max, end=100))
    assert (found.verdict, found.diverged) == ("diverged", 100)
    assert codes(found.reasons) == ("diverged-beyond-edge",)
    assert found.reasons[0].numbers["since"] == 80
    assert found.reasons[0].numbers["largest"] == pytest.approx(6.0)
    assert "crossed the edge" in found.summary()
    assert call("curvature", tmp_path / "a.h5", "--strict").exit_code == 0


@pytest.mark.parametrize(("every", "words"), [(1, "another cause"), (10, "10 steps between")])
def test_a_training_that_diverges_below_the_edge_has_another_cause_or_a_gap(tmp_path, every, words):
    found = measured(ended(tmp_path / "a.h5", np.full(240, 5.0), end=200, every=every))
    assert (found.verdict, found.diverged) == ("diverged", 200)
    assert codes(found.reasons) == ("diverged-below-edge",)
    assert words in str(found.reasons[0])


def test_an_early_visit_to_the_edge_is_not_how_a_training_diverges(tmp_path):
    h_max = np.concatenate([np.full(20, 25.0), np.full(200, 5.0)])
    assert codes(measured(ended(tmp_path / "a.h5", h_max, end=215)).reasons) == ("diverged-below-edge",)


def test_a_training_at_the_edge_that_diverges_was_there_first(tmp_path):
    h_max = np.concatenate([rising(2.0), np.zeros(3)])
    found = measured(ended(tmp_path / "a.h5", h_max, end=400, broken=np.inf))
    assert found.verdict == "diverged"
    assert codes(found.reasons) == ("diverged-beyond-edge", "threshold-reached")
    assert 90 <= found.reasons[0].numbers["since"] <= 101


def test_a_loss_that_is_lost_is_a_divergence_and_one_that_is_missing_is_none(tmp_path):
    h_max = np.r_[np.full(50, 5.0), np.full(5, np.nan)]
    lost = np.r_[np.linspace(1, 9, 50), np.full(5, np.nan)]
    assert measured(write(tmp_path / "a.h5", h_max, loss=lost)).diverged == 50
    assert measured(write(tmp_path / "b.h5", h_max, loss=np.r_[lost[:54], np.inf])).diverged == 50
    rare = np.where(np.arange(55) % 10 == 0, 1.0, np.nan)
    for name, loss in (("c", rare), ("d", np.r_[np.ones(54), np.nan]), ("e", np.ones(55))):
        found = measured(write(tmp_path / f"{name}.h5", h_max, loss=loss))
        assert np.isnan(found.diverged)
        assert found.verdict == "below the edge"


def test_a_divergence_without_known_curvature_is_one(tmp_path):
    found = measured(ended(tmp_path / "a.h5", np.full(30, 5.0), end=0))
    assert (found.verdict, codes(found.reasons)[0]) == ("diverged", "diverged")


def test_the_command_says_what_the_library_says(tmp_path):
    path = write(tmp_path / "a.h5", rising(2.0))
    said = call("curvature", path).stdout
    assert "at the edge" in said
    (found,) = json.loads(call("curvature", path, "--json").stdout)["results"]
    assert found["result"]["entry"] == measured(path).entry
    call("curvature", path, "--plot", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
