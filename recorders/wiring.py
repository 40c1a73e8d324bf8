"""Which nodes the kernels of attention and residual networks connect; what is not known is connected to nothing else.

The residual stream of a stack of blocks is one node set: every block reads from it and adds to it, so that its units
are the same at every depth. The product of attention has no weights: queries, keys and values end at sets of their own,
and the output projection starts at the set ``:heads`` of what the heads put side by side.

A residual block of convolutions reads from the stream that it adds to; where its shortcut has a kernel of its own, or
numbers of channels differ, another stream begins, ``<block>:residual``. Layers around blocks are a chain, as in
`trajtools.wiring.describe`.

References
----------
K. He et al., CVPR 2016, arXiv:1512.03385; A. Vaswani et al., NeurIPS 2017, arXiv:1706.03762; J. Devlin et al., NAACL
2019, arXiv:1810.04805; A. Radford et al., Language models are unsupervised multitask learners (2019); H. Touvron et
al., arXiv:2302.13971 (2023)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dis import get_instructions
from types import CodeType

from recorders.adapter import Role
from trajtools.wiring import BIAS_NODE, INPUT, KERNELS, Ends

Rules = tuple[tuple[str, str, str], ...]

# Kernel below a stack, source, target; {s} is its residual stream, and sets are named below the stack.
GPT2: Rules = (
    (r"wte", "wte:vocabulary", "{s}"),
    (r"wpe", "wpe:positions", "{s}"),
    (r"(h\.\d+\.attn)\.c_attn", "{s}", r"\1.c_attn"),
    (r"(h\.\d+\.attn)\.c_proj", r"\1:heads", "{s}"),
    (r"(h\.\d+\.mlp)\.c_fc", "{s}", r"\1"),
    (r"(h\.\d+\.mlp)\.c_proj", r"\1", "{s}"),
)
BERT: Rules = (
    (r"embeddings\.(\w+)_embeddings", r"embeddings.\1:vocabulary", "{s}"),
    (r"(encoder\.layer\.\d+\.attention)\.self\.(query|key|value)", "{s}", r"\1.\2"),
    (r"(encoder\.layer\.\d+\.attention)\.output\.dense", r"\1:heads", "{s}"),
    (r"(encoder\.layer\.\d+)\.intermediate\.dense", "{s}", r"\1.intermediate"),
    (r"(encoder\.layer\.\d+)\.output\.dense", r"\1.intermediate", "{s}"),
    (r"pooler\.dense", "{s}", "pooler"),
)
LLAMA: Rules = (
    (r"embed_tokens", "embed_tokens:vocabulary", "{s}"),
    (r"(layers\.\d+\.self_attn)\.([qkv]_proj)", "{s}", r"\1.\2"),
    (r"(layers\.\d+\.self_attn)\.o_proj", r"\1:heads", "{s}"),
    # A unit of the gated layer is the product of both.
    (r"(layers\.\d+\.mlp)\.(?:gate|up)_proj", "{s}", r"\1"),
    (r"(layers\.\d+\.mlp)\.down_proj", r"\1", "{s}"),
)
# Of torch: a layer of an encoder or a decoder; cross-attention reads from two streams by one matrix, and stays out.
LAYER: Rules = (
    (r"self_attn\.(in_proj|[qkv]_proj)_?", "{s}", r"self_attn.\1"),
    (r"(self_attn|multihead_attn)\.out_proj", r"\1:heads", "{s}"),
    (r"linear1", "{s}", "linear1"),
    (r"linear2", "linear1", "{s}"),
)
ATTENTION: Rules = (
    (r"in_proj_?", ":in", "in_proj"),
    (r"([qkv])_proj_?", r"\1:in", r"\1_proj"),
    (r"out_proj", ":heads", "out_proj"),
)
# Of equinox, whose queries, keys and values may be three arrays. The kernels of flax have an axis for the heads, and
# connect nothing.
PROJECTIONS: Rules = (
    (r"(query|key|value)_proj", r"\1:in", r"\1_proj"),
    (r"output_proj", ":heads", "output_proj"),
)
BLOCKS = re.compile(r"BasicBlock|Bottleneck|Res(Net|idual)?Block")
SHORTCUTS = re.compile(r"downsample|(conv_?)?shortcut|conv_proj|projection", re.IGNORECASE)
INNER = re.compile(r"conv_?(\d+)", re.IGNORECASE)
STACKS: dict[str, Rules] = {
    "GPT2Model": GPT2,
    "BertModel": BERT,
    "RobertaModel": BERT,
    "LlamaModel": LLAMA,
    "MistralModel": LLAMA,
    "Qwen2Model": LLAMA,
}
# Beside a stack, in the module around it.
HEADS = {"lm_head": "", "score": "", "classifier": "pooler", "qa_outputs": ""}
_LORA = re.compile(r"(.+)\.lora_([AB])\.\w+\.weight$")


def wire(roles: Mapping[str, Role], stacks: Mapping[str, tuple[Rules, str]]) -> dict[str, Ends | None]:
    """Ends of every kernel of a network with attention.

    Parameters
    ----------
    roles : mapping of str to Role
        Of every parameter, by name.
    stacks : mapping of str to (rules, stream)
        The known parts by the prefix of their names, outermost first, each with the name of its residual stream.

    Returns
    -------
    dict
        Name -> (source, target); None where a kernel connects nothing. A kernel outside of the known parts starts and
        ends at sets of its own.
    """
    result: dict[str, Ends | None] = {}
    for name, role in roles.items():
        if role.kind not in KERNELS or role.kind == "recurrent":  # a cell has its own rules
            continue
        if -1 in (role.source_axis, role.target_axis):
            result[name] = None
            continue
        low = _LORA.match(name)
        layer = low[1] if low else _layer_of(name).replace(".base_layer", "")
        ends = _known(layer, stacks) or _head(layer, stacks, roles)
        if ends is None:
            ends = (f"{layer}:{'vocabulary' if role.kind == 'embedding' else 'in'}", layer)
        elif ends == ("", ""):
            result[name] = None
            continue
        if low:  # a product of two kernels, through few units
            ends = (ends[0], f"{layer}:lora") if low[2] == "A" else (f"{layer}:lora", ends[1])
        result[name] = ends
    return result


def _known(layer: str, stacks: Mapping[str, tuple[Rules, str]]) -> Ends | None:
    """Ends of a kernel in a known part; ("", "") where it connects nothing, None outside of these parts."""
    for prefix, (rules, stream) in stacks.items():
        head = f"{prefix}." if prefix else ""
        if not layer.startswith(head):
            continue
        for pattern, *ends in rules:
            match = re.fullmatch(pattern, layer[len(head) :])
            if match:
                source, target = (stream if end == "{s}" else _below(prefix, match.expand(end)) for end in ends)
                return source, target
        if "multihead_attn" in layer:
            return "", ""
    return None


def _below(prefix: str, name: str) -> str:
    return name if not prefix else f"{prefix}{name}" if name.startswith(":") else f"{prefix}.{name}"


def _head(layer: str, stacks: Mapping[str, tuple[Rules, str]], names: Iterable[str]) -> Ends | None:
    """Ends of the output layer beside a stack of transformers."""
    around, _, short = layer.rpartition(".")
    for prefix, (rules, stream) in stacks.items():
        if rules in STACKS.values() and prefix.rpartition(".")[0] == around and short in HEADS:
            before = HEADS[short]
            pooled = before and any(name.startswith(f"{prefix}.{before}.") for name in names)
            return (f"{prefix}.{before}" if pooled else stream), layer
    return None


def chain(
    roles: Mapping[str, Role], shapes: Mapping[str, tuple[int, ...]], blocks: Iterable[str]
) -> dict[str, Ends | None]:
    """Ends of every kernel of a chain of layers and residual blocks.

    Parameters
    ----------
    roles, shapes : mapping
        Of every parameter by name, in the order of the layers.
    blocks : iterable of str
        Prefixes of the residual blocks.

    Returns
    -------
    dict
        Name -> (source, target); None where a kernel connects nothing: in groups, or in a block that has other kernels
        than a sequence of convolutions and one in its shortcut.
    """
    prefixes = [f"{block}." for block in blocks]
    kernels = [name for name, role in roles.items() if role.kind in KERNELS and role.kind != "recurrent"]
    walk = _Walk(roles, shapes)
    for name in kernels:
        prefix = next((one for one in prefixes if name.startswith(one)), "")
        if not prefix:
            walk.layer(name)
        elif name not in walk.ends:
            walk.block(prefix, [one for one in kernels if one.startswith(prefix)])
    return walk.ends


class _Walk:
    """A walk along a chain: where its last layer ended, and how many units are there."""

    def __init__(self, roles: Mapping[str, Role], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._roles, self._shapes = roles, shapes
        self.ends: dict[str, Ends | None] = {}
        self._here, self._size = INPUT, -1  # -1: any

    def layer(self, name: str, target: str = "") -> None:
        """One kernel, to the set of its name where no other is given."""
        role, shape, label = self._roles[name], self._shapes[name], _layer_of(name)
        if -1 in (role.source_axis, role.target_axis):
            self.ends[name], self._here, self._size = None, "", 0
            return
        label = f"{label}:out" if label in (INPUT, BIAS_NODE) else label
        n, m = shape[role.source_axis], shape[role.target_axis]
        source = f"{label}:vocabulary" if role.kind == "embedding" else self._source(label, n)
        self.ends[name] = source, target or label
        self._here, self._size = target or label, m

    def block(self, prefix: str, names: Sequence[str]) -> None:
        """A residual block with its kernels."""
        inner = sorted((one for one in names if INNER.fullmatch(_layer_of(one)[len(prefix) :])), key=_number)
        rest = [one for one in names if one not in inner]
        if inner and self._size < 0:
            self._size = self._shapes[inner[0]][self._roles[inner[0]].source_axis]
        begin = self._here, self._size
        known = all(SHORTCUTS.match(one[len(prefix) :]) for one in rest)
        if not inner or len(rest) > 1 or not known or any(self._roles[one].kind != "conv" for one in names):
            self.ends.update(dict.fromkeys(names))
            self._here, self._size = "", 0
            return
        for name in inner[:-1]:
            self.layer(name)
        last = self._roles[inner[-1]]
        added = self._shapes[inner[-1]][last.target_axis] if last.target_axis >= 0 else 0
        first = self.ends[inner[0]] if len(inner) > 1 else None
        is_same = not rest and added == begin[1] and (first is None or first[0] == begin[0])
        stream = begin[0] if is_same else f"{prefix.rstrip('.')}:residual"
        self.layer(inner[-1], stream)
        end = self._here, self._size
        for name in rest:
            self._here, self._size = begin
            self.layer(name, stream)
        self._here, self._size = end

    def _source(self, label: str, n: int) -> str:
        return self._here if self._here and self._size in (n, -1) else f"{label}:in"


def adds(function: object) -> bool:
    """Whether a forward pass has an addition in it, as that of a residual block does."""
    code = getattr(function, "__code__", None)
    return isinstance(code, CodeType) and (
        "add" in code.co_names or any(one.argrepr in ("+", "+=") for one in get_instructions(code))
    )


def _layer_of(name: str) -> str:
    return re.sub(r"\.?(weight|kernel|embedding)$", "", name)


def _number(name: str) -> int:
    """Number of a convolution in its block: ``conv2``, ``Conv_1``."""
    return int(_layer_of(name).rpartition(".")[2].lower().removeprefix("conv").strip("_"))
