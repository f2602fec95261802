"""The GPT-2 and Llama architectures of Hugging Face transformers, in terms of a Moreish GPT."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu": "gelu-exact",
    "relu": "relu",
}
"""The values of `model.feedforward`, by the names that transformers uses."""


@dataclass(frozen=True, kw_only=True)
class TensorMap:
    """How one tensor of a Moreish GPT is made from tensors of transformers."""

    ours: str
    theirs: tuple[str, ...]
    """Concatenated along the first dimension; names are without the common prefix."""
    transposed: bool
    """Whether theirs are (in, out), unlike `nn.Linear`."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The names of settings and layers in transformers, by their names in a Moreish GPT."""

    class_name: str
    prefix: str
    """The common prefix of the tensor names."""
    tied_by_default: bool
    has_biases: bool
    settings: Mapping[str, str]
    fixed_settings: Mapping[str, Any]
    """Settings of transformers that must have these values if they are present."""
    block_prefix: str
    block_layers: Mapping[str, tuple[str, ...]]
    outer_layers: Mapping[str, tuple[str, ...]]

    def tensor_maps(self, layers: int, *, tied: bool) -> list[TensorMap]:
        """Return the maps of all tensors of a model with this number of blocks."""
        names = dict(self.outer_layers)
        for i in range(layers):
            for ours, theirs in self.block_layers.items():
                names[f"blocks.{i}.{ours}"] = tuple(f"{self.block_prefix}.{i}.{t}" for t in theirs)
        names["head"] = self.outer_layers["embedding"] if tied else ("lm_head",)
        without_bias = ("embedding", "position", "head") if self.has_biases else tuple(names)
        return [
            TensorMap(
                ours=f"{ours}.{end}",
                theirs=tuple(f"{name}.{end}" for name in theirs),
                transposed=end == "weight" and ".c_" in theirs[0],  # GPT-2's Conv1D
            )
            for ours, theirs in names.items()
            for end in ("weight", "bias")
            if end == "weight" or ours not in without_bias
        ]


ARCHITECTURES = {
    "gpt2": Architecture(
        class_name="GPT2LMHeadModel",
        prefix="transformer.",
        tied_by_default=True,
        has_biases=True,
        settings={
            "layers": "n_layer",
            "heads": "n_head",
            "width": "n_embd",
            "context": "n_positions",
            "feedforward_width": "n_inner",
            "norm_eps": "layer_norm_epsilon",
        },
        fixed_settings={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        block_prefix="h",
        block_layers={
            "attention.qkv": ("attn.c_attn",),
            "attention.out": ("attn.c_proj",),
            "feedforward.up": ("mlp.c_fc",),
            "feedforward.down": ("mlp.c_proj",),
            "norm_attention": ("ln_1",),
            "norm_feedforward": ("ln_2",),
        },
        outer_layers={"embedding": ("wte",), "position": ("wpe",), "norm": ("ln_f",)},
    ),
    "llama": Architecture(
        class_name="LlamaForCausalLM",
        prefix="model.",
        tied_by_default=False,
        has_biases=False,
        settings={
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "kv_heads": "num_key_value_heads",
            "width": "hidden_size",
            "context": "max_position_embeddings",
            "feedforward_width": "intermediate_size",
            "norm_eps": "rms_norm_eps",
        },
        fixed_settings={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
        block_prefix="layers",
        block_layers={
            "norm_attention": ("input_layernorm",),
            "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "attention.out": ("self_attn.o_proj",),
            "norm_feedforward": ("post_attention_layernorm",),
            "feedforward.up": ("mlp.gate_proj", "mlp.up_proj"),
            "feedforward.down": ("mlp.down_proj",),
        },
        outer_layers={"embedding": ("embed_tokens",), "norm": ("norm",)},
    ),
}
