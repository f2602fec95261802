"""Exports GPTs as folders for Hugging Face transformers (GPT-2 and Llama architectures)."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from moreish.convert.export import (
    GREEDY_TOKENS,
    Exporter,
    ParityError,
    ParityResult,
    check_encoding,
    check_greedy_decoding,
    max_abs_difference,
    start_token,
    validation_text,
)
from moreish.convert.hf_import import ACTIVATIONS, TensorMap, gpt2_tensors, llama_tensors
from moreish.errors import MoreishError
from moreish.models import GPT, Block, GPTConfig
from moreish.runs import Run
from moreish.settings import Tree
from moreish.tokenizers import (
    END_OF_TEXT,
    UNICODE_TO_BYTE,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
)
from moreish.utils.files import encode_json, write_atomic
from moreish.utils.safetensors_io import iter_safetensors_bytes

TOLERANCE = 1e-4
"""The largest difference of logits that passes the parity check."""

PREFIXES = {"gpt2": "transformer.", "llama": "model."}
"""The prefix of the tensor names, by architecture."""


@final
class HFExporter(Exporter):
    """Writes a folder for AutoModelForCausalLM and AutoTokenizer."""

    program = "transformers"
    libraries = ("transformers",)
    library_name = "transformers"
    main_file = "config.json"

    def __init__(self, run: Run) -> None:
        self.run = run
        self.model, self.config, self.tensor_maps = map_to_hf(run, self.program)
        self.architecture = self.config["model_type"]

    def write(self, folder: Path) -> None:
        write_atomic(folder / "config.json", encode_json(self.config))
        write_atomic(folder / "tokenizer.json", encode_json(_tokenizer_json(self.run.tokenizer)))
        write_atomic(folder / "tokenizer_config.json", encode_json(_tokenizer_config(self.run)))
        prefix = PREFIXES[self.architecture]
        weights = {
            name if name.startswith("lm_head") else prefix + name: tensor
            for name, tensor in hf_tensors(self.model, self.tensor_maps)
        }
        metadata = {"format": "pt"}
        write_atomic(folder / "model.safetensors", iter_safetensors_bytes(weights, metadata))

    def usage(self) -> str:
        return """
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```
"""

    @torch.inference_mode()
    def check_parity(self, folder: Path) -> ParityResult:
        run, model, transformers = self.run, self.model, import_module("transformers")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        exported = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        rng, length = np.random.default_rng(0), min(model.context, 256)
        tokens_BT = torch.from_numpy(rng.integers(model.vocab_size, size=(2, length)))
        difference = max_abs_difference(exported(tokens_BT).logits, model(tokens_BT)[0])
        if not difference < TOLERANCE:
            raise ParityError(f"logits differ by {difference:.2g}")
        text = validation_text(run)
        check_encoding(run, text, tokenizer(text, add_special_tokens=False)["input_ids"])
        first, generated = start_token(run), []
        if (max_tokens := min(GREEDY_TOKENS, model.context - 1)) > 0:
            prompt_BT = torch.tensor([[first]])
            output_BT = exported.generate(
                prompt_BT,
                attention_mask=torch.ones_like(prompt_BT),
                max_new_tokens=max_tokens,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=None,
            )
            generated = output_BT[0, 1:].tolist()
        ties = check_greedy_decoding(model, first, generated, TOLERANCE)
        return ParityResult(max_difference=difference, matching_tokens=len(generated), ties=ties)


def map_to_hf(run: Run, program: str) -> tuple[GPT, Tree, list[TensorMap]]:
    """Maps a run to an architecture of transformers.

    Args:
        program: the name of the target in error messages.

    Returns:
        The model, its config.json, and how its tensors map to those of the architecture.

    Raises:
        MoreishError: the model is neither a GPT-2 nor a Llama.
    """
    model, config, tokenizer = run.model, run.config.model, run.tokenizer
    if not isinstance(model, GPT) or not isinstance(config, GPTConfig):
        raise MoreishError(
            f"{program} has no {config.name} model: only a gpt can be exported to it, and every "
            "model with --to onnx"
        )
    for name, expected in (
        ("ngram_embedding", 1), ("norm_place", "before"), ("qk_norm", False), ("softcap", 0.0),
    ):  # fmt: skip
        if (value := getattr(config, name)) != expected:
            raise MoreishError(f"{program} has no model with model.{name}={value}")
    common = {
        "torch_dtype": "float32",
        "vocab_size": tokenizer.vocab_size,
        "tie_word_embeddings": config.tied,
        "bos_token_id": tokenizer.boundary_id,
        "eos_token_id": tokenizer.boundary_id,
    }
    # Several of their names map to one of ours; the first of them is written.
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    parts = config.positions, config.norm, config.feedforward
    if parts[:2] == ("learned", "layer") and config.feedforward in activations:
        if config.kv_heads not in (None, config.heads):
            raise MoreishError("GPT-2 has no grouped-query attention (model.kv_heads)")
        gpt2 = {
            **common,
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_embd": config.width,
            "n_positions": config.context,
            "n_inner": _feedforward_width(model),
            "activation_function": activations[config.feedforward],
            "layer_norm_epsilon": 1e-5 if config.norm_eps is None else config.norm_eps,
            "resid_pdrop": config.dropout,
            "embd_pdrop": config.dropout,
            "attn_pdrop": config.dropout,
        }
        return model, gpt2, list(gpt2_tensors(config.layers, tied=config.tied))
    if parts == ("rotary", "rms", "swiglu"):
        if config.bias:
            raise MoreishError("Llama has no biases: train with model.bias=false")
        if model.head_width % 2:
            raise MoreishError("Llama needs an even head width (model.width / model.heads)")
        llama = {
            **common,
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads or config.heads,
            "hidden_size": config.width,
            "intermediate_size": _feedforward_width(model),
            "max_position_embeddings": config.context,
            "rms_norm_eps": (
                torch.finfo(torch.float32).eps if config.norm_eps is None else config.norm_eps
            ),
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
            "hidden_act": "silu",
            "attention_dropout": config.dropout,
        }
        return model, llama, list(llama_tensors(config.layers, tied=config.tied))
    raise MoreishError(
        f"only two architectures can be exported to {program}: GPT-2 (model.positions=learned, "
        "norm=layer, feedforward=gelu) and Llama (positions=rotary, norm=rms, feedforward=swiglu, "
        "bias=false)"
    )


def _feedforward_width(model: GPT) -> int:
    block = model.blocks[0]
    assert isinstance(block, Block)
    return block.feedforward.down.in_features


def hf_tensors(model: GPT, tensor_maps: list[TensorMap]) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of the other architecture, under their names without a prefix.

    A bias that the model lacks becomes zeros.
    """
    state = model.state_dict()
    block = model.blocks[0]
    assert isinstance(block, Block)
    kv_width = block.attention.heads[1] * model.head_width
    for tensor_map in tensor_maps:
        name = tensor_map.ours
        if name in state:
            tensor = state[name]
        else:
            tensor = torch.zeros(len(state[name.removesuffix("bias") + "weight"]))
        if len(tensor_map.theirs) == 3:  # queries, keys and values
            parts = tensor.split([len(tensor) - 2 * kv_width, kv_width, kv_width])
        else:
            parts = tensor.chunk(len(tensor_map.theirs))
        for theirs, part in zip(tensor_map.theirs, parts, strict=True):
            yield theirs, part.mT if tensor_map.transposed else part


def _tokenizer_json(tokenizer: Tokenizer) -> Tree:
    """Returns the tokenizer in the format of the `tokenizers` library."""
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.to_json()
    end_of_text = {} if tokenizer.boundary_id is None else {END_OF_TEXT: 0}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    common: Tree = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, "special": True, **flags}
            for token, i in end_of_text.items()
        ],
        "normalizer": None,
        "post_processor": None,
    }
    if isinstance(tokenizer, ByteTokenizer):
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
        vocab = {character: byte + len(end_of_text) for character, byte in UNICODE_TO_BYTE.items()}
        return {
            **common,
            "pre_tokenizer": {**byte_level, "use_regex": False},
            "decoder": byte_level,
            "model": {"type": "BPE", "vocab": vocab | end_of_text, "merges": []},
        }
    if isinstance(tokenizer, CharTokenizer):
        vocab = {character: i for i, character in enumerate(tokenizer.characters, len(end_of_text))}
        # Unlike ".", this matches line breaks too.
        every_character = {"Regex": r"[\s\S]"}
        return {
            **common,
            "pre_tokenizer": {
                "type": "Split",
                "pattern": every_character,
                "behavior": "Isolated",
                "invert": False,
            },
            "decoder": {"type": "Fuse"},
            "model": {
                "type": "WordLevel",
                "vocab": vocab | end_of_text,
                "unk_token": "<|unknown|>",
            },
        }
    raise MoreishError(f"transformers has no tokenizer like '{tokenizer.name}'")


def _tokenizer_config(run: Run) -> Tree:
    config: Tree = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": run.model.max_length,
        "clean_up_tokenization_spaces": False,
    }
    if run.tokenizer.boundary_id is not None:
        added = run.tokenizer.to_json().get("added_tokens") or [{"content": END_OF_TEXT, "id": 0}]
        end = next(t["content"] for t in added if t["id"] == run.tokenizer.boundary_id)
        config |= {"bos_token": end, "eos_token": end}
    return config
