"""Residual blocks of torch, flax and equinox, and the attention of both: what their kernels connect."""

import numpy as np
import pytest

import recorders.wiring as rules
import trajtools as tt

pytestmark = pytest.mark.recorders


def ends(tmp_path, recorder, state, **options):
    with recorder(tmp_path / "run.h5", state, quiet=True, **options):
        pass
    with tt.open(tmp_path / "run.h5") as run:
        return {p.name: (p.source, p.target) for p in run.parameters}, run.trajectory()


NONE = (None, None)


def torch_blocks():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class BasicBlock(nn.Module):
        """As torchvision has it."""

        def __init__(self, n, m, stride=1, groups=1):
            super().__init__()
            self.conv1 = nn.Conv2d(n, m, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(m)
            self.conv2 = nn.Conv2d(m, m, 3, 1, 1, groups=groups, bias=False)
            self.bn2 = nn.BatchNorm2d(m)
            self.downsample = None
            if n != m:
                self.downsample = nn.Sequential(nn.Conv2d(n, m, 1, stride, bias=False), nn.BatchNorm2d(m))

        def forward(self, x):
            out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            out += x if self.downsample is None else self.downsample(x)
            return out.relu()

    class ResNet(nn.Module):
        def __init__(self, **options):
            super().__init__()
            torch.manual_seed(0)
            self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
            self.layer1 = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
            self.layer2 = nn.Sequential(BasicBlock(4, 6, 2, **options), BasicBlock(6, 6))
            self.fc = nn.Linear(6, 5)

        def forward(self, x):
            x = self.layer2(self.layer1(self.bn1(self.conv1(x)).relu()))
            return self.fc(x.mean((2, 3)))

    return torch, BasicBlock, ResNet


@pytest.mark.torch
def test_the_blocks_of_a_torch_resnet_add_to_the_stream_that_they_read(tmp_path):
    torch, _, ResNet = torch_blocks()
    from recorders.torch import Recorder

    found, x = ends(tmp_path, Recorder, ResNet())
    stream = "layer2.0:residual"
    assert {name: pair for name, pair in found.items() if pair != NONE} == {
        "conv1.weight": ("input", "conv1"),
        "layer1.0.conv1.weight": ("conv1", "layer1.0.conv1"),
        "layer1.0.conv2.weight": ("layer1.0.conv1", "conv1"),
        "layer1.1.conv1.weight": ("conv1", "layer1.1.conv1"),
        "layer1.1.conv2.weight": ("layer1.1.conv1", "conv1"),
        "layer2.0.conv1.weight": ("conv1", "layer2.0.conv1"),
        "layer2.0.conv2.weight": ("layer2.0.conv1", stream),
        "layer2.0.downsample.0.weight": ("conv1", stream),
        "layer2.1.conv1.weight": (stream, "layer2.1.conv1"),
        "layer2.1.conv2.weight": ("layer2.1.conv1", stream),
        "fc.weight": (stream, "fc"),
        "fc.bias": ("bias", "fc"),
    }
    # The proof: channels of the stream may be renumbered at all of its ends at once, and the network is the same.
    model, order = ResNet().eval(), torch.tensor([2, 0, 3, 1])
    batch = torch.randn(2, 3, 9, 9)
    before = model(batch)
    with torch.no_grad():
        for p in x.parameters:
            weight = model.get_parameter(p.name)
            if p.source == "conv1":
                weight.copy_(weight.index_select(p.source_axis, order))
            if p.target == "conv1":
                weight.copy_(weight.index_select(p.target_axis, order))
    torch.testing.assert_close(model(batch), before)
    assert np.mean([p.source is None for p in x.parameters if p.kind != "norm"]) == 0


@pytest.mark.torch
def test_what_is_not_known_of_a_block_has_no_edges(tmp_path):
    torch, BasicBlock, ResNet = torch_blocks()
    from recorders.torch import Recorder

    found, _ = ends(tmp_path, Recorder, ResNet(groups=2), mode="w")
    assert found["layer2.0.conv2.weight"] == NONE
    assert found["layer2.0.downsample.0.weight"] == ("conv1", "layer2.0:residual")
    assert found["layer2.1.conv1.weight"][1] == "layer2.1.conv1"
    model = ResNet()
    model.layer1[1].attention = torch.nn.Linear(4, 4)  # of squeeze and excitation, say
    found, _ = ends(tmp_path, Recorder, model, mode="w")
    assert {found[f"layer1.1.{name}.weight"] for name in ("conv1", "conv2", "attention")} == {NONE}
    assert found["layer2.0.conv1.weight"] == ("layer2.0.conv1:in", "layer2.0.conv1")

    class Plain(BasicBlock):
        def forward(self, x):
            return self.conv2(self.conv1(x))

    Plain.__name__ = "BasicBlock"
    found, _ = ends(tmp_path, Recorder, torch.nn.Sequential(Plain(4, 4), Plain(4, 4)), mode="w")
    assert found["1.conv1.weight"] == ("0.conv2", "1.conv1")  # nothing is added: a chain


@pytest.mark.jax
def test_the_blocks_of_a_flax_resnet_are_wired_in_the_order_of_their_numbers(tmp_path):
    jax, linen = pytest.importorskip("jax"), pytest.importorskip("flax.linen")
    from recorders.jax import Recorder

    class ResNetBlock(linen.Module):
        width: int

        @linen.compact
        def __call__(self, x):
            y = linen.Conv(self.width, (3, 3), use_bias=False)(x)
            y = linen.BatchNorm(use_running_average=True)(y)
            y = linen.Conv(self.width, (3, 3), use_bias=False)(linen.relu(y))
            if x.shape != y.shape:
                x = linen.Conv(self.width, (1, 1), use_bias=False, name="conv_proj")(x)
            return linen.relu(x + y)

    class ResNet(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Conv(4, (3, 3), name="conv_init")(x)
            for width in (4, 6, 6):
                x = ResNetBlock(width)(x)
            return linen.Dense(5)(x.mean((1, 2)))

    params = ResNet().init(jax.random.key(0), np.ones((1, 8, 8, 3)))["params"]
    found, _ = ends(tmp_path, Recorder, params)
    stream = "ResNetBlock_1:residual"
    assert {name: pair for name, pair in found.items() if pair[0] not in (None, "bias")} == {
        "conv_init.kernel": ("input", "conv_init"),
        "ResNetBlock_0.Conv_0.kernel": ("conv_init", "ResNetBlock_0.Conv_0"),
        "ResNetBlock_0.Conv_1.kernel": ("ResNetBlock_0.Conv_0", "conv_init"),
        "ResNetBlock_1.Conv_0.kernel": ("conv_init", "ResNetBlock_1.Conv_0"),
        "ResNetBlock_1.Conv_1.kernel": ("ResNetBlock_1.Conv_0", stream),
        "ResNetBlock_1.conv_proj.kernel": ("conv_init", stream),
        "ResNetBlock_2.Conv_0.kernel": (stream, "ResNetBlock_2.Conv_0"),
        "ResNetBlock_2.Conv_1.kernel": ("ResNetBlock_2.Conv_0", stream),
        "Dense_0.kernel": (stream, "Dense_0"),
    }


@pytest.mark.jax
def test_equinox_attention_and_blocks_are_wired_by_their_classes(tmp_path):
    jax, eqx = pytest.importorskip("jax"), pytest.importorskip("equinox")
    from recorders.jax import Recorder

    keys = iter(jax.random.split(jax.random.key(0), 9))

    class BasicBlock(eqx.Module):
        conv1: eqx.nn.Conv2d
        conv2: eqx.nn.Conv2d

        def __call__(self, x):
            return x + self.conv2(jax.nn.relu(self.conv1(x)))

    def conv(n, m):
        return eqx.nn.Conv2d(n, m, 3, padding=1, use_bias=False, key=next(keys))

    net = {"a": conv(3, 4), "blocks": [BasicBlock(conv(4, 6), conv(6, 4))]}
    found, _ = ends(tmp_path, Recorder, net, mode="w")
    assert found["blocks.0.conv1.weight"] == ("a", "blocks.0.conv1")
    assert found["blocks.0.conv2.weight"] == ("blocks.0.conv1", "a")

    net = {"attention": eqx.nn.MultiheadAttention(2, 8, key=next(keys)), "out": eqx.nn.Linear(8, 8, key=next(keys))}
    found, _ = ends(tmp_path, Recorder, net, mode="w")
    assert found["attention.query_proj.weight"] == ("attention.query:in", "attention.query_proj")
    assert found["attention.output_proj.weight"] == ("attention:heads", "attention.output_proj")
    assert found["out.weight"] == ("out:in", "out")


@pytest.mark.jax
def test_kernels_with_an_axis_for_the_heads_have_no_edges_and_metrics_say_so(tmp_path):
    jax, linen = pytest.importorskip("jax"), pytest.importorskip("flax.linen")
    from recorders.jax import Recorder
    from trajtools.errors import InputWarning

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = x + linen.MultiHeadDotProductAttention(num_heads=2)(linen.LayerNorm()(x))
            return x + linen.Dense(8)(linen.Dense(16)(x))

    params = Block().init(jax.random.key(0), np.ones((1, 3, 8)))["params"]
    found, x = ends(tmp_path, Recorder, params)
    assert all(
        found[f"MultiHeadDotProductAttention_0.{name}.kernel"] == NONE for name in ("query", "key", "value", "out")
    )
    assert found["Dense_0.kernel"] == ("Dense_0:in", "Dense_0")
    with pytest.warns(InputWarning, match=r"sees 4\d% of the weights here"):
        tt.pairwise(x, metric="strengths")


def test_an_addition_is_seen_in_the_code():
    def plain(x):
        return x * 2

    assert rules.adds(lambda x: x + 1)
    assert not rules.adds(plain)
    assert not rules.adds(len)
