"""Runs as folders for Hugging Face's transformers, checked with it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreish.errors import MoreishError, command
from moreish.exchange.hf import ACTIVATIONS, Part, gpt2_parts, llama_parts
from moreish.files import PART, to_json, write_atomic
from moreish.models.gpt import GPT, Block
from moreish.models.gpt_config import GPTConfig
from moreish.run import Run
from moreish.settings import Tree
from moreish.tokenizers import Tokenizer
from moreish.tokenizers.bpe import BYTES, END_OF_TEXT, BPETokenizer
from moreish.tokenizers.byte import ByteTokenizer
from moreish.tokenizers.char import CharTokenizer
from moreish.weights import safetensors_pieces

TOLERANCE = 1e-4
"""Of logits."""

PREFIXES = {"gpt2": "transformer.", "llama": "model."}
"""What the names of their tensors begin with."""

GREEDY = 200
"""Tokens that both must write alike."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how well it was found to agree."""

    path: Path
    kind: str
    """Of model, as transformers calls it."""
    logit_difference: float
    """The largest."""
    tokens_alike: int
    """Written greedily by both."""


def export_hf(
    run: Run, out: Path, *, licence: str = "unknown", overwrite: bool = False
) -> Exported:
    """A folder that AutoModelForCausalLM and AutoTokenizer read; it appears only if what they make
    of it is what the run makes of it.

    Args:
        licence: for the model card.

    Raises:
        MoreishError: the model cannot be expressed, transformers is missing or disagrees, or `out`
            exists.
    """
    if out.exists() and not (overwrite and (out / "config.json").is_file()):
        hint = ": --overwrite replaces an export" if (out / "config.json").is_file() else ""
        raise MoreishError(f"{out} exists{hint}")
    try:
        transformers = import_module("transformers")
    except ImportError:
        raise MoreishError("this needs a library: pip install 'moreish[hf]'") from None
    model = run.model
    if not isinstance(model, GPT) or not isinstance(run.config.model, GPTConfig):
        raise MoreishError(f"transformers has no {run.config.model.name}: only a gpt can be taken")
    settings, parts = _settings(model, run.config.model, run.tokenizer)
    beside = out.with_name(f".{out.name}{PART}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        write_atomic(beside / "config.json", to_json(settings))
        write_atomic(beside / "tokenizer.json", to_json(_tokenizer(run.tokenizer)))
        write_atomic(beside / "tokenizer_config.json", to_json(_about_tokenizer(run)))
        weights = dict(_weights(model, parts, PREFIXES[settings["model_type"]]))
        about = {"format": "pt"}
        write_atomic(beside / "model.safetensors", safetensors_pieces(weights, about))
        write_atomic(beside / "README.md", _card(run, licence).encode())
        found = _checked(run, model, beside, transformers)
        if out.exists():
            shutil.rmtree(out)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Exported(
        path=out,
        kind=settings["model_type"],
        logit_difference=found[0],
        tokens_alike=found[1],
    )


def _settings(model: GPT, config: GPTConfig, tokenizer: Tokenizer) -> tuple[Tree, list[Part]]:
    """config.json, and what our tensors become."""
    for name, expected in (
        ("grams", 1), ("norm_place", "before"), ("qk_norm", False), ("scaled", True),
        ("projection", True), ("residual", True), ("softcap", 0.0),
    ):  # fmt: skip
        if (found := getattr(config, name)) != expected:
            raise MoreishError(f"transformers has no model with model.{name}={found}")
    common = {
        "torch_dtype": "float32",
        "vocab_size": tokenizer.vocab_size,
        "tie_word_embeddings": config.tied,
        "bos_token_id": tokenizer.boundary,
        "eos_token_id": tokenizer.boundary,
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
        "only two kinds can be taken to transformers: GPT-2's (model.positions=learned, "
        "norm=layer, feedforward=gelu) and Llama's (rotary, rms, swiglu, without biases)"
    )


def _inner(model: GPT) -> int:
    """The inner width of its feed-forwards."""
    block = model.blocks[0]
    assert isinstance(block, Block) and block.feedforward is not None
    return block.feedforward.down.in_features


def _weights(model: GPT, parts: list[Part], prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Their tensors; a bias that we do not have is zero."""
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
            name = theirs if theirs.startswith("lm_head") else prefix + theirs
            yield name, piece.mT if part.turned else piece


def _tokenizer(tokenizer: Tokenizer) -> Tree:
    """Ours as a standard tokenizer.json."""
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.to_json()
    first = int(tokenizer.boundary is not None)
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
        vocab = {character: byte + first for character, byte in BYTES.items()}
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
    if run.tokenizer.boundary is not None:
        added = run.tokenizer.to_json().get("added_tokens") or [{"content": END_OF_TEXT, "id": 0}]
        end = next(t["content"] for t in added if t["id"] == run.tokenizer.boundary)
        about |= {"bos_token": end, "eos_token": end}
    return about


def _card(run: Run, licence: str) -> str:
    """The model card."""
    record, data = run.record, run.record.data
    scores = "\n".join(
        f"| {name} | {score.loss:.4f} | {score.bits_per_byte:.4f} | {score.tokens:,} |"
        for name, score in run.scores.items()
    )
    hashes = "\n".join(f"- {name}: `{digest}`" for name, digest in data.sha256.items())
    return f"""---
license: {licence}
library_name: transformers
pipeline_tag: text-generation
---

# {run.path.resolve().name}

A language model of {data.name} ({data.characters:,} characters), trained with Moreish
{record.versions["moreish"]}: {record.parameters or 0:,} parameters.

| split | loss (nats per token) | bits per byte | tokens |
|---|---|---|---|
{scores}

sha256 of the tokens of each split:

{hashes}

Settings:

```json
{json.dumps(record.config, indent=2)}
```
"""


@torch.inference_mode()
def _checked(run: Run, model: GPT, folder: Path, transformers: Any) -> tuple[float, int]:
    """The largest difference of logits, and how many tokens both write alike.

    Raises:
        MoreishError: they disagree.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    context = model.context
    random = np.random.default_rng(0).integers(model.vocab_size, size=(2, min(context, 256)))
    tokens_BT = torch.from_numpy(random)
    difference = float((model(tokens_BT)[0] - theirs(tokens_BT).logits).abs().max())
    if not difference < TOLERANCE:
        raise _disagree(f"logits differ by {difference:.2g}")
    text = _some_text(run)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if ids != run.tokenizer.encode(text).tolist():
        raise _disagree(f"{text[:30]!r} becomes other tokens")
    start = [0 if run.tokenizer.boundary is None else run.tokenizer.boundary]
    most = min(GREEDY, context - 1)
    asked = {"max_new_tokens": most, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    prompt_BT = torch.tensor([start])
    written = theirs.generate(prompt_BT, attention_mask=torch.ones_like(prompt_BT), **asked)[0]
    state, last_BT = None, prompt_BT
    for place, token in enumerate(written.tolist()[1:]):
        logits_BTV, state = model(last_BT, state)
        last_BT = logits_BTV[:, -1:].argmax(-1)
        if int(last_BT) != token:
            if logits_BTV[0, -1].max() - logits_BTV[0, -1, token] < TOLERANCE:
                return difference, place  # as likely, so either may be taken
            raise _disagree("what they write without chance differs")
    return difference, most


def _some_text(run: Run) -> str:
    """Of validation, where there is any."""
    if not run.split_names:
        return "The quick brown fox\njumps over 13 lazy dogs."
    tokens = run.split("val")
    ids = tokens.item(0) if tokens.items else tokens.ids_N[:500].astype(np.int64)
    return run.tokenizer.decode(ids).replace("\ufffd", "")


def _disagree(why: str) -> MoreishError:
    return MoreishError(
        f"transformers does not agree with this run ({why}), so nothing was exported: please "
        f"report that, with what {command('eval')} and pip show transformers print"
    )
