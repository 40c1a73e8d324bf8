"""Attention and residual blocks of torch and transformers: what their kernels connect, and what graphs see of them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders.torch import Recorder  # noqa: E402
from trajtools.errors import InputWarning  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.recorders,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of transformers, at each other
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]


def recorded(tmp_path, model, **options):
    with Recorder(tmp_path / "run.h5", model, quiet=True, **options):
        pass
    return tt.open(tmp_path / "run.h5")


def ends(run):
    return {p.name: (p.source, p.target) for p in run.parameters}


def share(run):
    return sum(p.size for p in run.parameters if p.source) / run.n_parameters


def test_the_layers_of_an_encoder_share_their_residual_stream(tmp_path):
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2)
    model = nn.ModuleDict({"embedding": nn.Embedding(11, 8), "encoder": encoder, "out": nn.Linear(8, 3)})
    with recorded(tmp_path, model) as run:
        found, stream = ends(run), "encoder.layers:residual"
        for layer in ("encoder.layers.0", "encoder.layers.1"):
            assert found[f"{layer}.self_attn.in_proj_weight"] == (stream, f"{layer}.self_attn.in_proj")
            assert found[f"{layer}.self_attn.in_proj_bias"] == ("bias", f"{layer}.self_attn.in_proj")
            assert found[f"{layer}.self_attn.out_proj.weight"] == (f"{layer}.self_attn:heads", stream)
            assert found[f"{layer}.linear1.weight"] == (stream, f"{layer}.linear1")
            assert found[f"{layer}.linear2.weight"] == (f"{layer}.linear1", stream)
            assert found[f"{layer}.linear2.bias"] == ("bias", stream)
            assert found[f"{layer}.norm1.weight"] == (None, None)
        # What the module around does with them is not known.
        assert found["embedding.weight"] == ("embedding:vocabulary", "embedding")
        assert found["out.weight"] == ("out:in", "out")
        assert {n.name: n.size for n in run.nodes}[stream] == 8


def test_cross_attention_has_no_edges_where_one_matrix_reads_two_streams(tmp_path):
    with recorded(tmp_path, nn.Sequential(nn.TransformerDecoderLayer(8, 2, 16))) as run:
        found = ends(run)
        assert found["0.multihead_attn.in_proj_weight"] == (None, None)
        assert found["0.multihead_attn.out_proj.weight"] == ("0.multihead_attn:heads", "residual")
        assert found["0.self_attn.in_proj_weight"] == ("residual", "0.self_attn.in_proj")


def test_attention_alone_connects_its_own_sets(tmp_path):
    with recorded(tmp_path, nn.Sequential(nn.Linear(4, 8), nn.MultiheadAttention(8, 2, kdim=5))) as run:
        found = ends(run)
        assert found["1.q_proj_weight"] == ("1.q:in", "1.q_proj")
        assert found["1.k_proj_weight"] == ("1.k:in", "1.k_proj")
        assert found["1.out_proj.weight"] == ("1:heads", "1.out_proj")
        assert found["0.weight"] == ("0:in", "0")


def test_the_wiring_of_the_user_wins(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16))
    with recorded(tmp_path, model, wiring={"0.weight": ("input", "residual")}, exclude="1.linear2.*") as run:
        assert ends(run)["0.weight"] == ("input", "residual")
        assert ends(run)["1.linear1.weight"] == ("residual", "1.linear1")


def transformer(kind):
    transformers = pytest.importorskip("transformers")
    few = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "vocab_size": 20}
    if kind == "gpt2":
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_layer=2, n_embd=8, n_head=2, n_positions=10, **few)
        )
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, **few}
    if kind == "bert":
        return transformers.BertForSequenceClassification(transformers.BertConfig(max_position_embeddings=10, **sizes))
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(num_key_value_heads=1, **sizes))


BLOCKS = {
    "gpt2": {
        "transformer.wte.weight": ("transformer.wte:vocabulary", "transformer:residual"),
        "transformer.wpe.weight": ("transformer.wpe:positions", "transformer:residual"),
        "transformer.h.1.attn.c_attn.weight": ("transformer:residual", "transformer.h.1.attn.c_attn"),
        "transformer.h.1.attn.c_proj.weight": ("transformer.h.1.attn:heads", "transformer:residual"),
        "transformer.h.1.mlp.c_fc.weight": ("transformer:residual", "transformer.h.1.mlp"),
        "transformer.h.1.mlp.c_proj.weight": ("transformer.h.1.mlp", "transformer:residual"),
    },
    "bert": {
        "bert.embeddings.word_embeddings.weight": ("bert.embeddings.word:vocabulary", "bert:residual"),
        **{
            f"bert.encoder.layer.1.attention.self.{name}.weight": (
                "bert:residual", f"bert.encoder.layer.1.attention.{name}"
            )
            for name in ("query", "key", "value")
        },
        "bert.encoder.layer.1.attention.output.dense.weight": ("bert.encoder.layer.1.attention:heads", "bert:residual"),
        "bert.encoder.layer.1.intermediate.dense.weight": ("bert:residual", "bert.encoder.layer.1.intermediate"),
        "bert.encoder.layer.1.output.dense.weight": ("bert.encoder.layer.1.intermediate", "bert:residual"),
        "bert.pooler.dense.weight": ("bert:residual", "bert.pooler"),
        "classifier.weight": ("bert.pooler", "classifier"),
    },
    "llama": {
        "model.embed_tokens.weight": ("model.embed_tokens:vocabulary", "model:residual"),
        "model.layers.1.self_attn.k_proj.weight": ("model:residual", "model.layers.1.self_attn.k_proj"),
        "model.layers.1.self_attn.o_proj.weight": ("model.layers.1.self_attn:heads", "model:residual"),
        "model.layers.1.mlp.gate_proj.weight": ("model:residual", "model.layers.1.mlp"),
        "model.layers.1.mlp.up_proj.weight": ("model:residual", "model.layers.1.mlp"),
        "model.layers.1.mlp.down_proj.weight": ("model.layers.1.mlp", "model:residual"),
        "lm_head.weight": ("model:residual", "lm_head"),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", BLOCKS)
def test_transformers_are_wired_as_their_papers_have_them(tmp_path, kind):
    with recorded(tmp_path, transformer(kind)) as run:
        found = ends(run)
        assert {name: found[name] for name in BLOCKS[kind]} == BLOCKS[kind]
        # All but the normalisations.
        assert [p.name for p in run.parameters if not p.source] == [p.name for p in run.parameters if p.kind == "norm"]
        assert share(run) > 0.94


def test_low_rank_adapters_lie_between_the_ends_of_their_kernel(tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        transformer("gpt2"), peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    )
    with recorded(tmp_path, model) as run:
        stem = "base_model.model.transformer"
        layer = f"{stem}.h.0.attn.c_attn"
        assert ends(run)[f"{layer}.lora_A.default.weight"] == (f"{stem}:residual", f"{layer}:lora")
        assert ends(run)[f"{layer}.lora_B.default.weight"] == (f"{layer}:lora", layer)


def test_metrics_of_graphs_say_how_little_they_see(tmp_path):
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(8, 3))
    with recorded(tmp_path, model) as run:
        x = run.trajectory()
        with pytest.warns(InputWarning) as caught:
            tt.pairwise(x, metric="strengths")
        assert "sees 20% of the weights here: what '0.weight' connect" in str(caught[0].message)


def test_units_of_a_hidden_layer_of_a_transformer_can_be_permuted(tmp_path):
    torch.manual_seed(0)
    model = transformer("gpt2")
    with recorded(tmp_path, model) as run:
        x = run.trajectory()
        state = x[0].astype(np.float64)
        mlp = {p.name.rpartition("mlp.")[2]: p for p in x.parameters if ".h.0.mlp." in p.name}
        order = np.random.default_rng(0).permutation(32)
        other = state.copy()
        for name, axis in (("c_fc.weight", 1), ("c_fc.bias", 0), ("c_proj.weight", 0)):
            p = mlp[name]
            block = state[p.offset : p.offset + p.size].reshape(p.shape)
            other[p.offset : p.offset + p.size] = block.take(order, axis).ravel()
        a, b = (tt.Trajectory.from_array(one[None], parameters=x.parameters, nodes=x.nodes) for one in (state, other))
        assert np.abs(state - other).sum() > 1
        assert tt.align(a, b).distance[0] < 1e-12
