"""Distances modulo order, sign and scale of hidden units: every order tried, planted orders, what a network does."""

from __future__ import annotations

import naive_graphs as naive
import networks_drawn as networks
import numpy as np
import numpy.testing as npt
import pytest

import trajtools as tt
from trajtools.distances.symmetry import balanced, find_units
from trajtools.errors import DataError, SelectionError, TooLargeError, UnknownNameError
from trajtools.reasons import codes
from trajtools.wiring import describe


def planted(state, tables, rng, signs=False):
    """The same network with its hidden units in another order."""
    state = state.copy()
    for units in find_units(*tables).sets:
        order, sign = rng.permutation(units.size), rng.choice([-1.0, 1.0], units.size)
        for use in units.uses:
            view = use.view(state)
            view[...] = view[order]
            if signs:
                view *= sign.reshape(-1, *(1,) * (view.ndim - 1))
    return state


def outputs(state, tables, x, activation):
    """What a perceptron with kernels (out, in) computes."""
    parameters = tables[0]
    kernels = [p for p in parameters if p.kind == "dense"]
    biases = {p.target: p for p in parameters if p.kind == "bias"}
    for i, p in enumerate(kernels):
        x = x @ networks.of_parameter(state, parameters, p.name).T
        if p.target in biases:
            x = x + networks.of_parameter(state, parameters, biases[p.target].name)
        if i + 1 < len(kernels):
            x = activation(x)
    return x


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize("base", ["l1", "l2"])
@pytest.mark.parametrize("signs", [False, True])
def test_one_hidden_layer_gives_the_smallest_distance_there_is(base, signs):
    tables = networks.mlp(2, 4, 2)
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.normal(size=(2, networks.size(tables[0])))
        graphs = [naive.drawn(x, *tables) for x in (a, b)]
        found = tt.align(a, b, base=base, signs=signs, parameters=tables[0], nodes=tables[1])
        npt.assert_allclose(found.distance, [naive.permutation(*graphs, ["0"], base, signs)], rtol=1e-12)
        assert found.proven.all()
        assert found.distance[0] < found.unaligned[0]


@pytest.mark.parametrize("base", ["l1", "l2"])
@pytest.mark.parametrize("kind", ["biases", "loop"])
def test_deeper_networks_give_an_upper_bound_that_is_close(base, kind):
    tables = networks.table(kind)
    hidden = [s.name for s in find_units(*tables).sets]
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(10):
        a, b = rng.normal(size=(2, networks.size(tables[0])))
        smallest = naive.permutation(*(naive.drawn(x, *tables) for x in (a, b)), hidden, base)
        found = tt.align(a, b, base=base, parameters=tables[0], nodes=tables[1])
        assert found.distance[0] >= smallest * (1 - 1e-12)
        assert found.distance[0] <= found.unaligned[0]
        assert not found.proven[0] or found.distance[0] <= smallest * (1 + 1e-12)
        hits += found.distance[0] <= smallest * (1 + 1e-12)
    assert hits >= 7


def test_close_networks_are_proven_to_be_closest_as_they_stand():
    tables = networks.table("biases")
    rng = np.random.default_rng(2)
    a, direction = rng.normal(size=(2, networks.size(tables[0])))
    for base in ("l1", "l2"):
        for signs in (False, True):
            found = tt.align(a, a + 1e-6 * direction, base=base, signs=signs, parameters=tables[0], nodes=tables[1])
            assert found.proven[0]
            assert found.distance[0] == found.unaligned[0]
            smallest = naive.permutation(
                *(naive.drawn(x, *tables) for x in (a, a + 1e-6 * direction)),
                ["W1", "W2"],
                base,
                signs and base == "l2",
            )
            npt.assert_allclose(found.distance[0], smallest, rtol=1e-9)


def test_two_equal_units_prove_nothing():
    tables = networks.mlp(2, 3, 3, 1)
    a = np.random.default_rng(3).normal(size=networks.size(tables[0]))
    for name in ("0.weight", "0.bias"):
        kernel = networks.of_parameter(a, tables[0], name)
        kernel[1] = kernel[0]
    b = a + 1e-3 * np.random.default_rng(4).normal(size=len(a))
    assert not tt.align(a, b, parameters=tables[0], nodes=tables[1]).proven[0]


@pytest.mark.parametrize("base", ["l1", "l2"])
@pytest.mark.parametrize("widths", [(16,), (24, 24), (16, 24, 8), (64, 64)])
def test_planted_orders_are_found(widths, base):
    tables = networks.mlp(12, *widths, 5)
    rng = np.random.default_rng(5)
    for _ in range(20 if base == "l2" else 3):
        a = rng.normal(size=networks.size(tables[0]))
        for signs in (False, True):
            b = planted(a, tables, rng, signs)
            found = tt.align(a, b, base=base, signs=signs, parameters=tables[0], nodes=tables[1])
            assert found.distance[0] == 0
            assert found.unaligned[0] > 1
            npt.assert_array_equal(found.states[0], a)


@pytest.mark.parametrize("kept", [0.1, 0.03])
@pytest.mark.parametrize("signs", [False, True])
def test_planted_orders_of_sparse_networks_are_found_though_units_tie(kept, signs):
    # With 8 inputs most units of the first layer receive nothing, and look alike from the input.
    tables = networks.mlp(8, 32, 32, 4)
    rng = np.random.default_rng(20)
    for _ in range(10):
        a = rng.normal(size=networks.size(tables[0]))
        a *= rng.random(len(a)) < kept
        b = planted(a, tables, rng, signs)
        assert tt.align(a, b, signs=signs, parameters=tables[0], nodes=tables[1]).distance[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("widths", [(512,), (512, 512), (512, 256, 128), (64, 64, 64, 64, 64)])
def test_planted_orders_are_found_in_100_of_100_wide_networks(widths):
    tables = networks.mlp(32, *widths, 10)
    rng = np.random.default_rng(6)
    shape = networks.size(tables[0])
    metric = tt.distances.METRICS["permutation"]
    exact = 0
    for _ in range(100):
        a = rng.normal(size=shape) / np.sqrt(widths[0])
        b = planted(a, tables, rng)
        exact += tt.distance(networks.trajectory(a, tables), networks.trajectory(b, tables), metric=metric)[0] == 0
    assert exact == 100


@pytest.mark.parametrize("kind", ["convolution", "loop", "normalised"])
def test_planted_orders_of_channels_loops_and_norms_are_found(kind):
    tables = networks.table(kind)
    rng = np.random.default_rng(7)
    for _ in range(20):
        a = rng.normal(size=networks.size(tables[0]))
        found = tt.align(a, planted(a, tables, rng), parameters=tables[0], nodes=tables[1])
        assert found.distance[0] == 0
        npt.assert_array_equal(found.states[0], a)


def test_an_aligned_network_does_what_it_did():
    tables = networks.mlp(3, 8, 8, 2)
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, networks.size(tables[0])))
    x = rng.normal(size=(10, 3))
    cases = ((np.tanh, {}), (np.tanh, {"signs": True}), (relu, {}), (relu, {"scales": True}))
    for activation, assumed in cases:
        found = tt.align(a, b, parameters=tables[0], nodes=tables[1], **assumed)
        before = outputs(b, tables, x, activation)
        npt.assert_allclose(outputs(found.states[0], tables, x, activation), before, rtol=1e-9, atol=1e-12)
        assert not np.array_equal(found.states[0], b)
        reference = a if found.reference is None else found.reference[0]
        npt.assert_allclose(np.linalg.norm(found.states[0] - reference), found.distance[0], rtol=1e-12)
        npt.assert_allclose(
            outputs(reference, tables, x, activation), outputs(a, tables, x, activation), rtol=1e-9, atol=1e-12
        )


def test_an_aligned_convolution_does_what_it_did():
    from scipy.signal import correlate

    tables = networks.table("convolution")
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=(2, networks.size(tables[0])))
    image = rng.normal(size=(2, 4, 3))

    def run(state):
        def of(name):
            return networks.of_parameter(state, tables[0], name)

        x = image
        for layer in ("c1", "c2"):
            kernel = of(f"{layer}.weight")
            x = np.stack(
                [
                    sum(correlate(x[i], k[i], mode="valid") for i in range(len(x))) + c
                    for k, c in zip(kernel, of(f"{layer}.bias"), strict=True)
                ]
            )
            x = relu(x)
        return of("fc.weight") @ x.ravel() + of("fc.bias")

    assert run(a).shape == (2,)
    found = tt.align(a, b, parameters=tables[0], nodes=tables[1])
    npt.assert_allclose(run(found.states[0]), run(b), rtol=1e-10)
    assert found.settings["flattened"] == {"fc:in": "channels-first"}
    last = tt.align(a, b, flatten="channels-last", parameters=tables[0], nodes=tables[1])
    assert last.settings["flattened"] == {"fc:in": "channels-last"}


def test_flattened_images_follow_the_order_of_the_kernel():
    shapes = {"c.kernel": (2, 2, 1, 3), "c.bias": (3,), "fc.kernel": (12, 2)}
    tables = describe({name: (shape, "float64") for name, shape in shapes.items()})
    units = find_units(*tables)
    assert units.flattened == {"fc:in": "channels-last"}
    a = np.arange(12 + 3 + 24, dtype=float)
    out = next(use for use in units.sets[0].uses if use.role == "out")
    npt.assert_array_equal(out.view(a)[1].ravel(), a[15:].reshape(4, 3, 2)[:, 1].ravel())


def test_scales_of_a_relu_network_are_no_distance():
    tables = networks.mlp(3, 6, 5, 2)
    rng = np.random.default_rng(10)
    a = rng.normal(size=networks.size(tables[0]))
    b = planted(a, tables, rng)
    for units in find_units(*tables).sets:
        scale = np.exp(rng.normal(size=units.size))
        for use in units.uses:
            view = use.view(b)
            view *= (scale if use.role == "in" else 1 / scale).reshape(-1, *(1,) * (view.ndim - 1))
    kwargs = {"parameters": tables[0], "nodes": tables[1]}
    npt.assert_allclose(outputs(a, tables, np.eye(3), relu), outputs(b, tables, np.eye(3), relu), rtol=1e-9)
    for base in ("l1", "l2"):
        assert tt.align(a, b, base=base, **kwargs).distance[0] > 0.5
        npt.assert_allclose(tt.align(a, b, base=base, scales=True, **kwargs).distance, 0, atol=1e-12)


def test_balanced_weights_are_the_smallest_and_balanced_at_every_unit():
    tables = networks.mlp(3, 6, 5, 2)
    sets = find_units(*tables).sets
    rng = np.random.default_rng(11)
    a = rng.normal(size=networks.size(tables[0]))
    for base, order in (("l1", 1), ("l2", 2)):
        found = balanced(a, sets, base)
        for units in sets:
            norms = [
                sum((np.abs(u.rows(found)) ** order).sum(axis=1) for u in units.uses if u.role == role)
                for role in ("in", "out")
            ]
            npt.assert_allclose(norms[0], norms[1], rtol=1e-12)
        smallest = np.linalg.norm(found, order)
        assert smallest < np.linalg.norm(a, order)
        for _ in range(50):
            other = found.copy()
            for units in sets:
                scale = np.exp(0.1 * rng.normal(size=units.size))
                for use in units.uses:
                    view = use.view(other)
                    view *= (scale if use.role == "in" else 1 / scale).reshape(-1, *(1,) * (view.ndim - 1))
            assert np.linalg.norm(other, order) >= smallest
        npt.assert_allclose(balanced(1e200 * a, sets, base), 1e200 * found, rtol=1e-12)


def test_a_dead_unit_has_no_weights_once_scales_are_free():
    tables = networks.mlp(2, 3, 1)
    a = np.random.default_rng(12).normal(size=networks.size(tables[0]))
    networks.of_parameter(a, tables[0], "1.weight")[0, 1] = 0.0
    found = balanced(a, find_units(*tables).sets, "l2")
    npt.assert_array_equal(networks.of_parameter(found, tables[0], "0.weight")[1], 0)
    assert networks.of_parameter(found, tables[0], "0.bias")[1] == 0


def test_orders_are_tracked_along_time_whatever_the_blocks(monkeypatch):
    # Two walks that drift apart: the order found at one state is a start at the next, across the blocks of a read.
    tables = networks.mlp(4, 8, 8, 3)
    rng = np.random.default_rng(13)
    steps = rng.normal(size=(2, 30, networks.size(tables[0])))
    steps[:, 1:] *= 0.1
    a, b = (networks.trajectory(x, tables) for x in steps.cumsum(axis=1))
    whole = tt.distance(a, b, metric="permutation")
    monkeypatch.setattr("trajtools.distances.equal_times.BLOCK_BYTES", 1)
    npt.assert_array_equal(tt.distance(a, b, metric="permutation"), whole)
    npt.assert_array_equal(tt.align(a, b).distance, whole)
    anew = [tt.distance(a[t : t + 1], b[t : t + 1], metric="permutation")[0] for t in range(30)]
    assert np.mean(whole) <= np.mean(anew)
    assert (whole <= tt.distance(a, b, metric="l2")).all()


def test_exponents_of_twins_are_reported_with_and_without_the_quotient():
    # Weights grow apart along an unstable direction, while the units of the twin change places half-way, as no training
    # would have them, and back: the raw distance jumps, the quotient does not.
    tables = networks.mlp(3, 5, 2)
    rng = np.random.default_rng(14)
    state, direction = rng.normal(size=(2, networks.size(tables[0])))
    t = np.arange(60)
    reference = state + 1e-3 * np.sin(0.1 * t)[:, None]
    twins = [reference + 1e-9 * np.exp(0.2 * t)[:, None] * d for d in (direction, -direction)]
    shuffled = [
        np.concatenate([x[:30], [planted(s, tables, np.random.default_rng(15)) for s in x[30:]]]) for x in twins
    ]
    pair = (networks.trajectory(reference, tables), [networks.trajectory(x, tables) for x in shuffled])

    raw = tt.twins(pair, metric="l2")
    quotient = tt.twins(pair, metric="permutation")

    assert raw.metric == "l2"
    assert quotient.metric == "permutation"
    npt.assert_allclose(np.diff(quotient.log_distance), 0.2, rtol=1e-5)
    assert abs(raw.log_distance[30] - raw.log_distance[29]) > 10
    slope = tt.statistics.fit_slope(quotient.time, quotient.log_distance, 0, 59).slope
    npt.assert_allclose(slope, 0.2, rtol=1e-5)
    npt.assert_allclose(quotient.floor[:, :20], tt.twins(pair, metric="l2").floor[:, :20])


def test_one_network_serves_as_reference_of_all_states():
    tables = networks.mlp(3, 5, 2)
    rng = np.random.default_rng(16)
    a = rng.normal(size=networks.size(tables[0]))
    b = np.stack([planted(a, tables, rng) for _ in range(4)]).astype("float32")
    found = tt.align(a.astype("float32"), networks.trajectory(b, tables))
    npt.assert_array_equal(found.distance, 0)
    assert found.states.dtype == np.float32
    assert found.orders["0"].shape == (4, 5)
    npt.assert_array_equal(found.step, np.arange(4))
    for t in range(4):
        npt.assert_array_equal(
            networks.of_parameter(b[t], tables[0], "0.bias")[found.orders["0"][t]],
            networks.of_parameter(a.astype("float32"), tables[0], "0.bias"),
        )
    assert set(found.to_dict()) >= {"distance", "proven", "orders", "settings"}


def test_states_that_are_not_finite_are_left_alone_and_counted():
    tables = networks.mlp(3, 5, 2)
    rng = np.random.default_rng(17)
    a, b = rng.normal(size=(2, 3, networks.size(tables[0])))
    b[1, 4] = np.nan
    found = tt.align(networks.trajectory(a, tables), networks.trajectory(b, tables))
    npt.assert_array_equal(found.excluded, [False, True, False])
    npt.assert_array_equal(found.states[1], b[1])
    npt.assert_array_equal(found.orders["0"][1], np.arange(5))
    assert any("1 of 3" in words.text for words in found.warnings)


def test_norms_travel_with_their_units_and_take_signs_and_scales_away():
    tables = networks.table("normalised")
    uses = {use.name for use in find_units(*tables).sets[0].uses if use.role == "norm"}
    assert uses == {"norm.weight", "norm.bias"}
    a, b = np.random.default_rng(18).normal(size=(2, networks.size(tables[0])))
    kwargs = {"parameters": tables[0], "nodes": tables[1]}
    found = tt.align(a, b, signs=True, scales=True, **kwargs)
    assert not found.signs
    assert "scales-fixed" in codes(found.warnings)
    npt.assert_allclose(found.distance, tt.align(a, b, **kwargs).distance)
    with pytest.raises(DataError, match="normalisation"):
        tt.align(a, b, signs=["l1"], **kwargs)


def torch_like(shapes):
    axes = {name: (1, 0) for name, shape in shapes.items() if len(shape) == 2}
    return describe({name: (shape, "float64") for name, shape in shapes.items()}, axes=axes)


def test_units_that_a_parameter_of_unknown_wiring_may_belong_to_keep_their_order():
    tables = torch_like({"a.weight": (4, 3), "b.weight": (5, 4), "c.weight": (2, 5), "gate": (2, 5, 1)})
    units = find_units(*tables)
    assert [s.name for s in units.sets] == ["a"]
    assert "gate" in units.fixed["b"]
    a, b = np.random.default_rng(19).normal(size=(2, networks.size(tables[0])))
    found = tt.align(a, b, parameters=tables[0], nodes=tables[1])
    assert any("'gate'" in words.text for words in found.warnings)
    assert found.settings["fixed"] == units.fixed
    npt.assert_array_equal(networks.of_parameter(found.states[0], tables[0], "gate"), b[-10:].reshape(2, 5, 1))


def test_norms_in_another_order_than_the_layers_are_attached_to_nothing():
    shapes = {"Dense_0.kernel": (3, 4), "Dense_1.kernel": (4, 4), "LayerNorm_0.scale": (4,), "LayerNorm_1.scale": (4,)}
    tables = describe({name: (shape, "float64") for name, shape in (shapes | {"Dense_2.kernel": (4, 2)}).items()})
    with pytest.raises(DataError, match="LayerNorm_0"):
        find_units(*tables)


def test_gates_of_a_recurrent_cell_keep_their_order():
    tables = torch_like(
        {"lstm.weight_ih": (12, 2), "lstm.weight_hh": (12, 3), "fc.weight": (4, 3), "out.weight": (1, 4)}
    )
    assert [s.name for s in find_units(*tables).sets] == ["fc"]


def test_what_cannot_be_aligned_is_refused_with_the_way_out(monkeypatch):
    tables = networks.mlp(3, 5, 2)
    kwargs = {"parameters": tables[0], "nodes": tables[1]}
    a = np.zeros(networks.size(tables[0]))
    with pytest.raises(UnknownNameError, match="l1 or l2"):
        tt.align(a, a, base="linf", **kwargs)
    with pytest.raises(UnknownNameError, match="channels-first"):
        tt.align(a, a, flatten="rows", **kwargs)
    with pytest.raises(SelectionError, match="hidden node sets are 0"):
        tt.align(a, a, signs=["tanh"], **kwargs)
    with pytest.raises(DataError, match="whole number"):
        tt.align(a, a, restarts=-1, **kwargs)
    with pytest.raises(DataError, match="needs their wiring"):
        tt.align(a, a)
    with pytest.raises(DataError, match="2 and 3 states"):
        tt.align(np.tile(a, (2, 1)), np.tile(a, (3, 1)), **kwargs)
    single = describe({"w": ((3, 2), "float64")})
    with pytest.raises(DataError, match="no hidden units"):
        tt.align(np.zeros(6), np.zeros(6), parameters=single[0], nodes=single[1])
    loop = networks.table("loop")
    x = np.zeros(networks.size(loop[0]))
    with pytest.raises(DataError, match="connect to themselves"):
        tt.align(x, x, scales=["weight_ih"], parameters=loop[0], nodes=loop[1])
    monkeypatch.setattr("trajtools.distances.permutation.MAX_ARRAY_BYTES", 100)
    with pytest.raises(TooLargeError, match="window"):
        tt.align(a, a, **kwargs)
