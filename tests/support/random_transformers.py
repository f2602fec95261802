"""Random models saved by transformers."""

import json
from pathlib import Path
from typing import Any

import torch

from conftest import STORY
from moreish.tokenizers import VocabularyLimits, tokenizer_builder

TINY_GPT2 = {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 24}
TINY_LLAMA = {
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32,
    "intermediate_size": 56, "max_position_embeddings": 24,
}  # fmt: skip

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2-wide": ("gpt2", {"n_inner": 40, "activation_function": "gelu", "n_head": 2}),
    "gpt2-padded": ("gpt2", {"vocab_size": 320}),
    "gpt2-untied": ("gpt2", {"tie_word_embeddings": False}),
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama-3": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}}),
    "llama-padded": ("llama", {"vocab_size": 320, "rms_norm_eps": 1e-5}),
}


def save_random_model(folder: Path, name: str, **more: Any) -> Any:
    """Saves a random model with transformers, and a byte-level tokenizer of 300 tokens."""
    import transformers

    kind, settings = SHAPES[name]
    own = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0, **settings}
    torch.manual_seed(3)
    if kind == "gpt2":
        config = transformers.GPT2Config(**{**TINY_GPT2, **own})
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(**{**TINY_LLAMA, **own})
        model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():  # no zeros and ones, which hide mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder, **more)
    limits = VocabularyLimits(vocab_size=300)
    tokenizer = tokenizer_builder("bpe").build([STORY], boundary=True, limits=limits)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer.to_json()), encoding="utf-8")
    return model.eval()
