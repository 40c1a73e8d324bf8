"""The numbers of a training while it runs: rates of known curves, thresholds of known optimisers, one line."""

import io
from math import exp, isnan, log, nan

import numpy as np
import pytest
from scipy import stats

from recorders import Recorder
from recorders.live import Growth, Line, in_a_line, ratio_with_interval

pytestmark = pytest.mark.recorders


def naive_interval(gains, times):
    """Ratio of means and its interval by linearisation, one pair after the other."""
    value = sum(gains) / sum(times)
    residuals = [gain - value * time for gain, time in zip(gains, times, strict=True)]
    mean_time = sum(times) / len(times)
    error = np.std(residuals, ddof=1) / np.sqrt(len(times)) / mean_time
    half = stats.t.ppf(0.975, len(times) - 1) * error
    return value, value - half, value + half


def test_the_interval_is_that_of_a_ratio_of_means():
    rng = np.random.default_rng(0)
    times = rng.uniform(5, 20, 7)
    gains = 0.3 * times + rng.normal(0, 0.2, 7)
    # The residuals have mean zero by construction, so the sum of their squares is that around their mean.
    np.testing.assert_allclose(ratio_with_interval(gains, times), naive_interval(gains, times), rtol=1e-12)
    assert ratio_with_interval(gains[:1], times[:1])[0] == gains[0] / times[0]
    assert all(map(isnan, ratio_with_interval(gains[:1], times[:1])[1:]))
    assert all(map(isnan, ratio_with_interval(np.array([]), np.array([]))))


def numbers(curve, copies=1, planted=0, growth=None):
    """Live numbers after a curve of distances, the same for all copies."""
    growth = growth or Growth()
    growth.planted(planted, range(1, copies + 1), np.full(copies, curve[0]))
    for age, distance in enumerate(curve[1:], 1):
        growth.note(planted + age, np.full(copies, distance))
    return growth.numbers(planted + len(curve) - 1, np.full(copies, curve[-1]))


@pytest.mark.parametrize("wait", [0, 40])
def test_the_exponent_is_the_rate_of_growth_without_the_wait_and_saturation(wait):
    curve = [1e-6] * (1 + wait) + [1e-6 * exp(0.1 * t) for t in range(1, 130)] + [1e-6 * exp(13)] * 50
    live = numbers(curve, copies=3)
    assert live["twin_exponent"] == pytest.approx(0.1, rel=1e-6)
    assert live["twin_distance"] == pytest.approx(1e-6 * exp(13))
    assert live["twin_starts"] == 1
    assert isnan(live["twin_exponent_low"])
    scaled = numbers([1e3 * distance for distance in curve], copies=3)
    assert scaled["twin_exponent"] == pytest.approx(live["twin_exponent"], rel=1e-9)


def test_contraction_is_measured_from_the_planting():
    assert numbers([exp(-0.2 * t) for t in range(30)])["twin_exponent"] == pytest.approx(-0.2)
    assert isnan(numbers([1.0])["twin_exponent"])
    assert isnan(numbers([0.0, 0.0, 0.0])["twin_exponent"])
    merged = numbers([exp(-0.2 * t) for t in range(30)] + [0.0] * 5 + [nan] * 5)
    assert merged["twin_exponent"] == pytest.approx(-0.2)


def test_several_starts_give_an_interval():
    growth = Growth()
    rates = (0.1, 0.12, 0.11)
    for i, rate in enumerate(rates):
        live = numbers([1e-6 * exp(rate * t) for t in range(100)], planted=100 * i, growth=growth, copies=2)
    gains = np.array([99 * rate - 3 for rate in rates])  # 2 e-folds after the start, 1 before the end
    expected = naive_interval(gains, [gain / rate for gain, rate in zip(gains, rates, strict=True)])
    got = [live[f"twin_exponent{end}"] for end in ("", "_low", "_high")]
    np.testing.assert_allclose(got, expected, rtol=1e-3)  # passages are interpolated between highs .05 apart
    assert live["twin_starts"] == 3


def test_the_line_shows_the_exponent_with_its_interval_and_is_rewritten_on_a_terminal():
    numbers = {"loss": 0.51234, "twin_exponent": 0.1, "twin_exponent_low": 0.08, "twin_exponent_high": 0.12}
    assert in_a_line(7, numbers) == "step 7  loss 0.5123  twin_exponent 0.1 [0.08, 0.12]"

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        line = Line(stream)
        assert not line.is_due()
        line.write(7, {"loss": 0.25})
        line.write(8, {}, last=True)
    assert terminal.getvalue() == "\rstep 7  loss 0.25\rstep 8           \n"
    assert file.getvalue() == "step 7  loss 0.25\nstep 8\n"


def test_a_recorder_has_the_newest_numbers_and_writes_its_line(tmp_path, capsys):
    weights = {"w": np.ones(3)}
    with Recorder(tmp_path / "run.h5", [weights, weights], progress=True, quiet=True) as recorder:
        assert recorder.live == {}
        for step in range(3):
            recorder.record(loss=[step, 9.0], rate=0.5)
            weights = {"w": weights["w"] * 0.9}
            recorder.record([weights, weights])
        assert recorder.live == {"loss": 2.0, "rate": 0.5}
    assert capsys.readouterr().err == "step 3  loss 2  rate 0.5\n"


@pytest.mark.torch
@pytest.mark.parametrize(("momentum", "nesterov", "decay"), [(0, False, 0), (0.9, False, 0.1), (0.8, True, 0)])
def test_the_threshold_divides_stable_from_unstable_steps(tmp_path, momentum, nesterov, decay):
    torch = pytest.importorskip("torch")
    from recorders.torch import Recorder

    def size_after(h, steps=3000):
        torch.set_default_dtype(torch.float64)
        try:
            model = torch.nn.Linear(1, 1, bias=False)
        finally:
            torch.set_default_dtype(torch.float32)
        settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **settings)
        if h is None:
            with Recorder(tmp_path / "run.h5", model, optimizer=optimizer, quiet=True) as recorder:
                recorder.record(h_max_full=8.0, shadow_h_max_batch=4.0)
                return recorder.live
        with torch.no_grad():
            model.weight.fill_(1.0)
        for _ in range(steps):
            model.weight.grad = h * model.weight.detach()
            optimizer.step()
        return abs(model.weight.item())

    live = size_after(None)
    assert live["shadow_h_max_batch_over_threshold"] == live["h_max_full_over_threshold"] / 2
    threshold = 8.0 / live["h_max_full_over_threshold"]
    assert size_after(0.99 * threshold) < 1e-3
    assert size_after(1.01 * threshold) > 1e3
    assert log(size_after(threshold) + 1) < 20


FROZEN = 1 - 1e-12  # second moments that hardly change


@pytest.mark.torch
@pytest.mark.parametrize(
    ("kind", "settings", "literature"),
    [
        ("Adam", {"betas": (0.9, FROZEN)}, 38 / 0.1),  # Cohen et al. 2022
        ("Adam", {"betas": (0.0, FROZEN), "amsgrad": True}, 2 / 0.1),
        ("AdamW", {"betas": (0.8, FROZEN), "weight_decay": 0.5}, None),
        ("RMSprop", {"alpha": FROZEN, "momentum": 0.9}, 3.8 / 0.1),
        ("RMSprop", {"alpha": FROZEN, "centered": True}, 2 / 0.1),
    ],
)
def test_the_preconditioned_threshold_divides_stable_from_unstable_steps(tmp_path, kind, settings, literature):
    torch = pytest.importorskip("torch")
    from recorders.torch import Recorder, preconditioner

    def prepared():
        model = torch.nn.Linear(2, 1, bias=False).double()
        optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1, **settings)
        with torch.no_grad():
            model.weight.fill_(1e-4)
        second, t = 1 - FROZEN, 1e8
        square = torch.tensor([[1.0, 4.0]], dtype=torch.float64)
        state = {"step": torch.tensor(t, dtype=torch.float64)}
        if kind == "RMSprop":
            zeros = torch.zeros_like(square)
            state |= {"square_avg": square, "momentum_buffer": zeros, "grad_avg": zeros.clone()}
        else:
            square = square * -np.expm1(t * np.log1p(-second))  # 1 - beta_2^t
            state |= {"exp_avg": torch.zeros_like(square), "exp_avg_sq": square, "max_exp_avg_sq": square.clone()}
        optimizer.state[model.weight] = state
        return model, optimizer

    model, optimizer = prepared()
    with Recorder(tmp_path / "run.h5", model, optimizer=optimizer, quiet=True) as recorder:
        recorder.record(preconditioned_h_max_full=8.0, h_max_full=8.0)
        ratios = {name: ratio for name, ratio in recorder.live.items() if name.endswith("_over_threshold")}
    threshold = 8.0 / ratios.pop("preconditioned_h_max_full_over_threshold")
    assert not ratios  # the plain Hessian has other units
    if literature:
        assert threshold == pytest.approx(literature, rel=1e-12)
    np.testing.assert_allclose(preconditioner(model, optimizer)["weight"], [[1.0, 2.0]], rtol=1e-6)

    def sizes(share, steps=2500):
        model, optimizer = prepared()
        units = preconditioner(model, optimizer)["weight"]
        for _ in range(steps):
            model.weight.grad = share * threshold * units * model.weight.detach()
            optimizer.step()
            yield model.weight.detach().abs().max().item() / 1e-4

    assert list(sizes(0.98))[-1] < 1e-1
    assert any(size > 1e1 for size in sizes(1.02))  # the second moments follow, later
