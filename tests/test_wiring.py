"""Which edges the entries are: the rules of `describe`, and that the user's wiring wins over them."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given, strategies as st

from trajtools import wiring
from trajtools.errors import ArchitectureError, SelectionError
from trajtools.wiring import KINDS, NodeSet, Parameter, describe


def found(shapes: dict[str, tuple[int, ...]], **options: object) -> tuple[dict[str, Parameter], dict[str, int]]:
    parameters, nodes = describe({n: (s, "float32") for n, s in shapes.items()}, **options)
    return {p.name: p for p in parameters}, {n.name: n.size for n in nodes}


def ends(table: dict[str, Parameter]) -> dict[str, tuple[str | None, str | None]]:
    return {name: (p.source, p.target) for name, p in table.items()}


MLP = {"hidden.kernel": (4, 10), "hidden.bias": (10,), "output.kernel": (10, 3), "output.bias": (3,)}


def test_a_perceptron_is_a_chain_of_node_sets_and_one_bias_node() -> None:
    table, sizes = found(MLP)
    assert ends(table) == {
        "hidden.kernel": ("input", "hidden"),
        "hidden.bias": ("bias", "hidden"),
        "output.kernel": ("hidden", "output"),
        "output.bias": ("bias", "output"),
    }
    assert sizes == {"input": 4, "hidden": 10, "output": 3, "bias": 1}
    assert [p.offset for p in table.values()] == [0, 40, 50, 80]
    assert (table["hidden.bias"].source_axis, table["hidden.bias"].target_axis) == (-1, 0)


@pytest.mark.parametrize(
    "names",
    [
        ("W1", "b1", "W2", "b2"),
        ("w_hidden", "b_hidden", "w_out", "b_out"),
        ("l1/kernel:0", "l1/bias:0", "l2/kernel:0", "l2/bias:0"),
        ("0.0", "0.1", "1.0", "1.1"),
        ("params.Dense_0.kernel", "params.Dense_0.bias", "params.Dense_1.kernel", "params.Dense_1.bias"),
    ],
)
def test_the_graph_does_not_depend_on_how_a_framework_names_things(names: tuple[str, ...]) -> None:
    table, sizes = found(dict(zip(names, MLP.values(), strict=True)))
    assert [p.kind for p in table.values()] == ["dense", "bias", "dense", "bias"]
    assert list(sizes.values()) == [4, 10, 3, 1]
    first, bias, second, last = table.values()
    assert (first.target, second.source) == (bias.target, bias.target)
    assert second.target == last.target


def test_the_order_of_bias_and_kernel_does_not_matter() -> None:
    swapped = {n: MLP[n] for n in ("hidden.bias", "hidden.kernel", "output.bias", "output.kernel")}
    assert ends(found(swapped)[0]) == ends(found(MLP)[0])


def test_biases_tell_that_kernels_are_stored_out_by_in() -> None:
    shapes = {"0.weight": (10, 4), "0.bias": (10,), "2.weight": (10, 10), "2.bias": (10,), "4.weight": (3, 10)}
    table, sizes = found(shapes)
    assert [(p.source_axis, p.target_axis) for p in table.values() if p.kind == "dense"] == [(1, 0)] * 3
    assert sizes == {"input": 4, "0": 10, "2": 10, "4": 3, "bias": 1}


def test_axes_of_the_framework_win_over_biases() -> None:
    table, sizes = found({"w": (3, 3), "v": (3, 2)}, axes={"w": (1, 0), "v": (0, 1)})
    assert [(p.source_axis, p.target_axis) for p in table.values()] == [(1, 0), (0, 1)]
    assert list(sizes.values()) == [3, 3, 2]


def test_norms_stay_in_the_state_and_out_of_the_graph() -> None:
    shapes = {
        "c1.weight": (8, 1, 3, 3), "c1.bias": (8,), "bn1.weight": (8,), "bn1.bias": (8,),
        "c2.weight": (16, 8, 3, 3), "c2.bias": (16,), "4.weight": (16,), "4.bias": (16,),
        "LayerNorm_0.scale": (16,), "LayerNorm_0.bias": (16,), "head.weight": (10, 16), "head.bias": (10,),
    }  # fmt: skip
    table, sizes = found(shapes)
    assert [n for n, p in table.items() if p.kind == "norm"] == [
        "bn1.weight", "bn1.bias", "4.weight", "4.bias", "LayerNorm_0.scale", "LayerNorm_0.bias",
    ]  # fmt: skip
    assert all(p.source is None and p.source_axis == -1 for p in table.values() if p.kind == "norm")
    assert sizes == {"input": 1, "c1": 8, "c2": 16, "head": 10, "bias": 1}


def test_flattening_makes_a_new_node_set() -> None:
    table, sizes = found({"conv.kernel": (3, 3, 1, 8), "fc.kernel": (200, 10)})
    assert ends(table) == {"conv.kernel": ("input", "conv"), "fc.kernel": ("fc:in", "fc")}
    assert sizes == {"input": 1, "conv": 8, "fc:in": 200, "fc": 10}


def test_a_grouped_convolution_is_no_edge_but_its_biases_say_what_it_ends_at() -> None:
    shapes = {
        "a.weight": (8, 3, 3, 3),
        "a.bias": (8,),
        "dw.weight": (8, 1, 3, 3),
        "dw.bias": (8,),
        "pw.weight": (4, 8, 1, 1),
    }
    axes = {"a.weight": (1, 0), "dw.weight": (-1, -1), "pw.weight": (1, 0)}
    table, _ = found(shapes, axes=axes)
    assert ends(table)["dw.weight"] == (None, None)
    assert ends(table)["dw.bias"] == ("bias", "dw")
    assert ends(table)["pw.weight"] == ("dw", "pw")
    bare, _ = found({n: s for n, s in shapes.items() if n != "dw.bias"}, axes=axes)
    assert ends(bare)["pw.weight"] == ("pw:in", "pw")


def test_a_recurrent_cell_starts_and_ends_at_its_own_units() -> None:
    table, sizes = found(
        {"rnn.weight_ih_l0": (5, 3), "rnn.weight_hh_l0": (5, 5), "rnn.bias_ih_l0": (5,), "o.weight": (2, 5)}
    )
    assert ends(table) == {
        "rnn.weight_ih_l0": ("input", "rnn.l0"),
        "rnn.weight_hh_l0": ("rnn.l0", "rnn.l0"),
        "rnn.bias_ih_l0": ("bias", "rnn.l0"),
        "o.weight": ("rnn.l0", "o"),
    }
    assert sizes == {"input": 3, "rnn.l0": 5, "o": 2, "bias": 1}


def test_gates_are_a_node_set_between_the_cell_and_itself() -> None:
    shapes = {f"lstm.weight_{side}h_l{layer}": (20, 5) for layer in (0, 1) for side in "ih"}
    table, sizes = found(shapes | {"fc.weight": (2, 5)}, axes=dict.fromkeys([*shapes, "fc.weight"], (1, 0)))
    assert ends(table)["lstm.weight_hh_l1"] == ("lstm.l1", "lstm.l1:gates")
    assert ends(table)["lstm.weight_ih_l1"] == ("lstm.l0", "lstm.l1:gates")
    assert ends(table)["fc.weight"] == ("lstm.l1", "fc")
    assert sizes["lstm.l0:gates"] == 20


def test_the_gates_of_a_flax_cell_belong_to_one_cell() -> None:
    shapes = {f"cell.{s}{g}.kernel": ((3, 6) if s == "i" else (6, 6)) for s in "hi" for g in "fgio"}
    table, sizes = found(shapes, kinds=dict.fromkeys(shapes, "recurrent"))
    assert {ends(table)[f"cell.h{g}.kernel"] for g in "fgio"} == {("cell", "cell")}
    assert {ends(table)[f"cell.i{g}.kernel"] for g in "fgio"} == {("input", "cell")}
    assert sizes == {"input": 3, "cell": 6}


def test_a_loop_without_input_kernel_runs_on_the_layer_before() -> None:
    table, _ = found({"Wx": (8, 6), "Wh": (6, 6), "bh": (6,), "Wo": (6, 2)}, kinds={"Wh": "recurrent"})
    assert ends(table)["Wh"] == ("Wx", "Wx")
    assert ends(table)["bh"] == ("bias", "Wx")
    assert ends(table)["Wo"] == ("Wx", "Wo")


def test_an_embedding_goes_from_vocabulary_to_features() -> None:
    table, sizes = found({"embed.weight": (50, 8), "fc.weight": (8, 4)})
    assert ends(table) == {"embed.weight": ("embed:vocabulary", "embed"), "fc.weight": ("embed", "fc")}
    assert sizes["embed:vocabulary"] == 50


def test_wiring_wins_over_the_rules() -> None:
    heads = {"trunk.kernel": (4, 6), "a.kernel": (6, 6), "b.kernel": (6, 6), "b.bias": (6,)}
    assert ends(found(heads)[0])["b.kernel"] == ("a", "b")  # the rule's guess: a chain
    table, sizes = found(heads, wiring={"b.kernel": ("trunk", "b")})
    assert ends(table)["b.kernel"] == ("trunk", "b")
    assert ends(table)["b.bias"] == ("bias", "b")
    assert sizes == {"input": 4, "trunk": 6, "a": 6, "b": 6, "bias": 1}


def test_an_exact_name_wins_over_a_glob_and_none_means_no_edges() -> None:
    table, _ = found(MLP, wiring={"hidden.kernel": ("pixels", "features"), "*.kernel": None})
    assert ends(table)["hidden.kernel"] == ("pixels", "features")
    assert ends(table)["output.kernel"] == (None, None)
    assert table["output.kernel"].source_axis == -1


def test_what_the_rules_leave_out_can_be_wired_by_hand() -> None:
    table, sizes = found({"qkv": (2, 4, 8)}, wiring={"qkv": ("tokens", "heads")})
    assert (table["qkv"].kind, sizes) == ("other", {"tokens": 4, "heads": 8})
    assert (table["qkv"].source_axis, table["qkv"].target_axis) == (1, 2)


@pytest.mark.parametrize(
    ("wiring", "error", "words"),
    [
        (
            {"output.kernel": ("input", "output")},
            ArchitectureError,
            r"'output.kernel'.*\(10, 3\) connects 10 -> 3 nodes, but 'input' has 4 nodes from 'hidden.kernel'",
        ),
        ({"hidden.kernel": ("x", "output")}, ArchitectureError, "'output' has 10 nodes from 'hidden.kernel', but 3"),
        ({"hidden.bias": ("input", "hidden")}, ArchitectureError, r"connects 1 -> 10 nodes, but 'input' has 4"),
        ({"conv*": ("a", "b")}, SelectionError, r"'conv\*', which matches none of hidden.kernel"),
        ({"hidden.kernel": "input"}, SelectionError, r"must be \(source, target\), two names, or None"),
        ({"hidden.kernel": ("input", 3)}, SelectionError, "two names, or None"),
    ],
)
def test_wrong_wiring_is_refused_with_the_sizes(wiring: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        found(MLP, wiring=wiring)


def test_wrong_kinds_and_axes_are_refused() -> None:
    with pytest.raises(ArchitectureError, match="kind 'linear' is none of dense, conv"):
        found(MLP, kinds={"hidden.kernel": "linear"})
    with pytest.raises(
        ArchitectureError, match=r"axes \(1, 2\) of 'hidden.kernel' do not exist: its shape is \(4, 10\)"
    ):
        found(MLP, axes={"hidden.kernel": (1, 2)})


def test_layers_called_input_or_bias_do_not_take_the_names_of_the_rules() -> None:
    table, sizes = found({"input.kernel": (4, 5), "input.bias": (5,), "bias.kernel": (5, 2), "bias.bias": (2,)})
    assert sizes == {"input": 4, "input:out": 5, "bias:out": 2, "bias": 1}
    assert ends(table)["bias.bias"] == ("bias", "bias:out")


def test_numbers_and_empty_arrays_are_described_too() -> None:
    table, sizes = found({"temperature": (), "none": (0, 3), "w": (3, 2)})
    assert (table["temperature"].kind, table["temperature"].size) == ("other", 1)
    assert table["w"].offset == 1
    assert sizes["w"] == 2


def test_a_bias_without_a_unit_axis_is_no_edge() -> None:
    table, _ = found({"attn.bias": (2, 3)}, kinds={"attn.bias": "bias"})
    assert ends(table) == {"attn.bias": (None, None)}


def test_a_single_number_cannot_be_wired() -> None:
    with pytest.raises(ArchitectureError, match="'temperature': a scalar connects no nodes"):
        found({"temperature": ()}, wiring={"temperature": ("a", "b")})


names = st.text("abwk01_.", min_size=1, max_size=12)
shapes = st.lists(st.integers(1, 6), max_size=5).map(tuple)


@given(st.dictionaries(names, shapes, max_size=8))
def test_any_names_and_shapes_give_tables_that_fit(shapes: dict[str, tuple[int, ...]]) -> None:
    parameters, nodes = describe({n: (s, "float64") for n, s in shapes.items()})
    sizes = {n.name: n.size for n in nodes}
    assert len(sizes) == len(nodes)
    assert all(isinstance(n, NodeSet) for n in nodes)
    offset = 0
    for p, (name, shape) in zip(parameters, shapes.items(), strict=True):
        assert (p.name, p.shape, p.offset, p.size) == (name, shape, offset, prod(shape))
        assert p.kind in KINDS
        offset += p.size
        assert (p.source is None) == (p.target is None)
        if p.source is not None and p.target is not None:
            assert sizes[p.source] == (1 if p.source_axis < 0 else shape[p.source_axis])
            assert sizes[p.target] == shape[p.target_axis]
        else:
            assert (p.source_axis, p.target_axis) == (-1, -1)


def test_a_bias_that_is_shaped_to_be_broadcast_is_an_edge_to_every_channel() -> None:
    shapes = {"conv.weight": (8, 3, 5, 5), "conv.bias": (8, 1, 1), "odd.bias": (2, 1, 4)}
    kinds, axes = {n: "bias" for n in shapes if "bias" in n}, {"conv.weight": (1, 0), "conv.bias": (-1, 0)}
    table, sizes = found(shapes, kinds=kinds, axes={**axes, "odd.bias": (-1, 0)})
    assert ends(table) == {"conv.weight": ("input", "conv"), "conv.bias": ("bias", "conv"), "odd.bias": (None, None)}
    assert (table["conv.bias"].source_axis, table["conv.bias"].target_axis) == (-1, 0)
    assert sizes == {"input": 3, "conv": 8, "bias": 1}


def test_the_work_grows_as_the_layers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0, 0]

    def counted(number: int, name: str) -> None:
        function = getattr(wiring, name)

        def count(*arguments: object) -> object:
            calls[number] += 1
            return function(*arguments)

        monkeypatch.setattr(wiring, name, count)

    counted(0, "_split")
    counted(1, "_cell")
    shapes = {"fc.weight": (4, 4), "fc.bias": (4,), "fc.gate_b": (4,), "rnn.weight_ih": (4, 4), "rnn.weight_hh": (4, 4)}
    work = []
    for layers in (20, 40):
        calls[:] = 0, 0
        found({f"{i}.{name}": shape for i in range(layers) for name, shape in shapes.items()})
        work.append(tuple(calls))
    assert work[1] == tuple(2 * count for count in work[0])
