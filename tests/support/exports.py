"""Runs, settings and tokenizers for the tests of exports."""

from pathlib import Path
from typing import Any

from conftest import STORY
from moreish import api
from moreish.runs.run import Run
from moreish.tokenizers import tokenizer_builder
from moreish.training.events import ignore

GPT = {"name": "gpt", "layers": 2, "heads": 4, "width": 16, "context": 20}
LLAMA = {"positions": "rotary", "norm": "rms", "feedforward": "swiglu", "bias": False}

MODELS: dict[str, dict[str, Any]] = {
    "bigram": {"name": "bigram"},
    "mlp": {"name": "mlp", "context": 3, "shared": False, "direct": True},
    "mlp of one token": {"name": "mlp", "context": 1},
    "bow": {"name": "bow", "context": 4},
    "bow of one token": {"name": "bow", "context": 1},
    "rnn": {"name": "rnn", "width": 16},
    "gru": {"name": "gru", "width": 16},
    "lstm": {"name": "lstm", "width": 16},
    "wavenet": {"name": "wavenet", "width": 8, "layers": 3},
    "lecture-gpt": {"name": "lecture-gpt", "width": 16, "context": 20},
    "gpt": GPT,
    "gpt, rotary, shared keys": {**GPT, **LLAMA, "kv_heads": 2, "qk_norm": True, "softcap": 5.0},
    "gpt, no positions": {**GPT, "positions": "none"},
    "gpt, n-grams": {**GPT, "ngram_embedding": 3, "ngram_embedding_rows": 100, "tied": True},
    "gpt, all else": {
        **GPT, "width": 20, "positions": "rotary", "norm_place": "after",
        "feedforward": "relu2", "ngram_embedding": 2,
    },
    "ngram": {"name": "ngram", "order": 3},
    "ngram of one token, nothing added": {"name": "ngram", "order": 1, "add_k": 0.0},
    "kneser-ney": {"name": "kneser-ney"},
    "mixture": {"name": "mixture", "network": {"name": "lstm", "width": 8}},
    "hybrid": {
        "name": "hybrid", "memory": 0, "layers": 1, "heads": 2, "width": 16, "context": 20,
    },
    "hybrid of an mlp": {"name": "hybrid", "memory": 0, "network": {"name": "mlp"}},
}  # fmt: skip
"""Settings of every model, for exports."""

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace("{1,3}", "")
"""The pre-tokenization of Llama 3 and of Qwen 2."""


def train_model(folder: Path, model: dict[str, Any], text: str = STORY, **options: Any) -> Run:
    """Train a model on a short text for one step, unless `steps` is set."""
    (folder / "story.txt").write_text(text * 4, encoding="utf-8")
    settings = {"model": model, "train": {"lr": 0.01}}
    options = {"steps": 1, "out": folder / "run", "report": ignore, "settings": settings, **options}
    return api.train(folder / "story.txt", **options)


def foreign_bpe(pattern: str, **model: Any) -> dict[str, Any]:
    """Return a tokenizer.json with another pre-tokenization, such as that of Llama 3."""
    data = tokenizer_builder("bpe").build([STORY * 4], boundary=True).to_json()
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    parts = [{**split, "invert": False}, {**data["pre_tokenizer"], "use_regex": False}]
    words = {"type": "Sequence", "pretokenizers": parts}
    return {**data, "pre_tokenizer": words, "model": {**data["model"], **model}}
