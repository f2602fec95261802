"""Runs as folders for Hugging Face's transformers, checked with it."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Self, final

import numpy as np
import torch
from torch import Tensor

from moreish.convert.export import (
    GREEDY,
    Agreement,
    DisagreementError,
    Export,
    first_token,
    greedy_agreement,
    largest_difference,
    some_text,
)
from moreish.convert.hf_import import ACTIVATIONS, Part, gpt2_parts, llama_parts
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
"""Of logits."""

PREFIXES = {"gpt2": "transformer.", "llama": "model."}
"""What the names of their tensors begin with."""


@final
class ToTransformers(Export):
    """A folder that AutoModelForCausalLM and AutoTokenizer read."""

    program = "transformers"
    libraries = ("transformers",)
    library_name = "transformers"
    main_file = "config.json"

    def __init__(self, run: Run, model: GPT, settings: Tree, parts: list[Part]) -> None:
        self.run, self.model, self.settings, self.parts = run, model, settings, parts
        self.kind = settings["model_type"]

    @classmethod
    def of(cls, run: Run) -> Self:
        return cls(run, *described(run, cls.program))

    def write(self, folder: Path) -> None:
        write_atomic(folder / "config.json", encode_json(self.settings))
        write_atomic(folder / "tokenizer.json", encode_json(_tokenizer(self.run.tokenizer)))
        write_atomic(folder / "tokenizer_config.json", encode_json(_about_tokenizer(self.run)))
        prefix = PREFIXES[self.kind]
        weights = {
            name if name.startswith("lm_head") else prefix + name: tensor
            for name, tensor in weights_of(self.model, self.parts)
        }
        about = {"format": "pt"}
        write_atomic(folder / "model.safetensors", iter_safetensors_bytes(weights, about))

    def usage(self) -> str:
        return """
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```
"""

    @torch.inference_mode()
    def agreement(self, folder: Path) -> Agreement:
        run, model, transformers = self.run, self.model, import_module("transformers")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        context = model.context
        random = np.random.default_rng(0).integers(model.vocab_size, size=(2, min(context, 256)))
        tokens_BT = torch.from_numpy(random)
        difference = largest_difference(theirs(tokens_BT).logits, model(tokens_BT)[0])
        if not difference < TOLERANCE:
            raise DisagreementError(f"logits differ by {difference:.2g}")
        text = some_text(run)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids != run.tokenizer.encode(text).tolist():
            raise DisagreementError(f"{text[:30]!r} becomes other tokens")
        first_BT = torch.tensor([[first_token(run)]])
        most = min(GREEDY, context - 1)
        asked = {"max_new_tokens": most, "do_sample": False, "eos_token_id": None}
        written = [first_token(run)]
        if most:
            mask_BT = torch.ones_like(first_BT)
            found = theirs.generate(first_BT, attention_mask=mask_BT, pad_token_id=0, **asked)
            written = found[0].tolist()
        alike, ties = greedy_agreement(model, written[0], written[1:], TOLERANCE)
        return Agreement(difference=difference, alike=alike, ties=ties)


def described(run: Run, program: str) -> tuple[GPT, Tree, list[Part]]:
    """The model of a run, its config.json, and what its tensors become there.

    Raises:
        MoreishError: it is of neither of the two kinds, which `program` does not know either.
    """
    model, config = run.model, run.config.model
    if not isinstance(model, GPT) or not isinstance(config, GPTConfig):
        raise MoreishError(
            f"{program} has no {config.name}, only a gpt can be taken there; --to onnx takes all"
        )
    settings, parts = _settings(model, config, run.tokenizer, program)
    return model, settings, parts


def _settings(
    model: GPT, config: GPTConfig, tokenizer: Tokenizer, program: str
) -> tuple[Tree, list[Part]]:
    for name, expected in (
        ("ngram_embedding", 1), ("norm_place", "before"), ("qk_norm", False), ("scaled", True),
        ("projection", True), ("residual", True), ("softcap", 0.0),
    ):  # fmt: skip
        if (found := getattr(config, name)) != expected:
            raise MoreishError(f"{program} has no model with model.{name}={found}")
    common = {
        "torch_dtype": "float32",
        "vocab_size": tokenizer.vocab_size,
        "tie_word_embeddings": config.tied,
        "bos_token_id": tokenizer.boundary_id,
        "eos_token_id": tokenizer.boundary_id,
    }
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    if config.positions == "learned" and config.norm == "layer" and config.feedforward in names:
        if config.kv_heads not in (None, config.heads):
            raise MoreishError("GPT-2 shares no keys and values between heads (model.kv_heads)")
        return {
            **common,
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_embd": config.width,
            "n_positions": config.context,
            "n_inner": _inner(model),
            "activation_function": names[config.feedforward],
            "layer_norm_epsilon": 1e-5 if config.norm_eps is None else config.norm_eps,
            "resid_pdrop": config.dropout,
            "embd_pdrop": config.dropout,
            "attn_pdrop": config.dropout,
        }, list(gpt2_parts(config.layers, tied=config.tied))
    if config.positions == "rotary" and config.norm == "rms" and config.feedforward == "swiglu":
        if config.bias:
            raise MoreishError("Llama has no biases (model.bias=false)")
        if model.head_width % 2:
            raise MoreishError("Llama has no heads of an odd width (model.width over model.heads)")
        eps = torch.finfo(torch.float32).eps if config.norm_eps is None else config.norm_eps
        rope = {"rope_type": "default", "rope_theta": config.rotary_base}
        return {
            **common,
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads or config.heads,
            "hidden_size": config.width,
            "intermediate_size": _inner(model),
            "max_position_embeddings": config.context,
            "rms_norm_eps": eps,
            "rope_parameters": rope,
            "hidden_act": "silu",
            "attention_dropout": config.dropout,
        }, list(llama_parts(config.layers, tied=config.tied))
    raise MoreishError(
        f"only two kinds can be taken to {program}: GPT-2's (model.positions=learned, "
        "norm=layer, feedforward=gelu) and Llama's (rotary, rms, swiglu, without biases)"
    )


def _inner(model: GPT) -> int:
    """The inner width of its feed-forwards."""
    block = model.blocks[0]
    assert isinstance(block, Block) and block.feedforward is not None
    return block.feedforward.down.in_features


def weights_of(model: GPT, parts: list[Part]) -> Iterator[tuple[str, Tensor]]:
    """Their tensors, by their names without prefix; a bias that we do not have is zero."""
    state = model.state_dict()
    block = model.blocks[0]
    assert isinstance(block, Block)
    kv = block.attention.heads[1] * model.head_width
    for part in parts:
        name = part.ours
        if name not in state:  # a bias
            like = state[name.removesuffix("bias") + "weight"]
            found = torch.zeros(like.shape[0])
        else:
            found = state[name]
        if len(part.theirs) == 3:  # queries, keys and values
            pieces = found.split([len(found) - 2 * kv, kv, kv])
        else:
            pieces = found.chunk(len(part.theirs))
        for theirs, piece in zip(part.theirs, pieces, strict=True):
            yield theirs, piece.mT if part.turned else piece


def _tokenizer(tokenizer: Tokenizer) -> Tree:
    """Ours as a standard tokenizer.json."""
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.to_json()
    first = int(tokenizer.boundary_id is not None)
    added = [{"id": 0, "content": END_OF_TEXT, "special": True}][:first]
    no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    whole: Tree = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**token, **no} for token in added],
        "normalizer": None,
        "post_processor": None,
    }
    if isinstance(tokenizer, ByteTokenizer):
        bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
        vocab = {character: byte + first for character, byte in UNICODE_TO_BYTE.items()}
        vocab |= {END_OF_TEXT: 0} if first else {}
        parts = {"pre_tokenizer": {**bytewise, "use_regex": False}, "decoder": bytewise}
        return {**whole, **parts, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    if isinstance(tokenizer, CharTokenizer):
        vocab = {character: place for place, character in enumerate(tokenizer.characters, first)}
        vocab |= {END_OF_TEXT: 0} if first else {}
        # Each character by itself, line ends too.
        each = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated"}
        parts = {"pre_tokenizer": {**each, "invert": False}, "decoder": {"type": "Fuse"}}
        model = {"type": "WordLevel", "vocab": vocab, "unk_token": "<|unknown|>"}
        return {**whole, **parts, "model": model}
    raise MoreishError(f"transformers has no tokenizer like '{tokenizer.name}'")


def _about_tokenizer(run: Run) -> Tree:
    about: Tree = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": run.model.max_length,
        "clean_up_tokenization_spaces": False,
    }
    if run.tokenizer.boundary_id is not None:
        added = run.tokenizer.to_json().get("added_tokens") or [{"content": END_OF_TEXT, "id": 0}]
        end = next(t["content"] for t in added if t["id"] == run.tokenizer.boundary_id)
        about |= {"bos_token": end, "eos_token": end}
    return about
