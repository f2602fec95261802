"""Exports GPTs as folders for Hugging Face transformers (GPT-2 and Llama architectures)."""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from moreish.convert.exporter import GREEDY_TOKENS, Exporter, ParityResult, max_abs_difference
from moreish.convert.hf_architectures import ACTIVATIONS, ARCHITECTURES, TensorMap
from moreish.errors import MoreishError, command
from moreish.models import GPT, GPTConfig
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

UNKNOWN = "<|unknown|>"
"""The name of the unknown token, which a vocabulary of characters does not have."""

TOLERANCE = 1e-4
"""The largest difference of logits that passes the parity check."""


@final
class HFExporter(Exporter):
    """Writes a folder for AutoModelForCausalLM and AutoTokenizer."""

    program = "transformers"
    libraries = ("transformers",)
    library_name = "transformers"
    main_file = "config.json"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.model, self.config, self.tensor_maps = map_to_hf(run, self.program)
        self.architecture = self.config["model_type"]
        self.tokenizer = tokenizer_to_hf(run.tokenizer)

    def write(self, folder: Path) -> None:
        write_atomic(folder / "config.json", encode_json(self.config))
        write_atomic(folder / "tokenizer.json", encode_json(self.tokenizer))
        write_atomic(folder / "tokenizer_config.json", encode_json(_tokenizer_config(self.run)))
        prefix = ARCHITECTURES[self.architecture].prefix
        weights = {
            name if name.startswith("lm_head") else prefix + name: tensor
            for name, tensor in hf_tensors(self.model, self.tensor_maps)
        }
        metadata = {"format": "pt"}
        write_atomic(folder / "model.safetensors", iter_safetensors_bytes(weights, metadata))

    def usage(self) -> str:
        prompt = json.dumps(self.example_prompt(), ensure_ascii=False)
        return f"""
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
inputs = tokenizer({prompt}, return_tensors="pt")
output = model.generate(**inputs, do_sample=True, max_new_tokens=100)
print(tokenizer.decode(output[0], skip_special_tokens=True))
```
"""

    @torch.inference_mode()
    def check_parity(self, folder: Path) -> ParityResult:
        model, transformers = self.model, import_module("transformers")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        exported = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        text = self.validation_text()
        self.check_encoding(text, tokenizer(text)["input_ids"])
        rng, length = np.random.default_rng(0), min(model.context, 256)
        tokens_BT = torch.from_numpy(rng.integers(model.vocab_size, size=(2, length)))
        difference = max_abs_difference(exported(tokens_BT).logits, model(tokens_BT)[0])
        inputs = tokenizer(self.prompt(text), return_tensors="pt")
        prompt, generated = inputs["input_ids"][0].tolist(), []
        if (max_tokens := min(GREEDY_TOKENS, model.context - len(prompt))) > 0:
            output_BT = exported.generate(
                **inputs,
                max_new_tokens=max_tokens,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=None,
            )
            generated = output_BT[0, len(prompt) :].tolist()
        return self.parity_result(difference, TOLERANCE, prompt, generated, TOLERANCE)


def map_to_hf(run: Run, program: str) -> tuple[GPT, Tree, list[TensorMap]]:
    """Map a run to an architecture of transformers.

    Args:
        program: the name of the target in error messages.

    Returns:
        The model, its config.json, and how its tensors map to those of the architecture.

    Raises:
        MoreishError: the model is neither a GPT-2 nor a Llama.
    """
    model, config, tokenizer = run.model, run.config.model, run.tokenizer
    data = run.config.data
    words = (*data.arguments(), "--model", "gpt")
    other = f"; train one that can be exported: {command('train', *words)}"
    if not isinstance(model, GPT) or not isinstance(config, GPTConfig):
        raise MoreishError(
            f"{program} has no {config.name} model: only a gpt can be exported to it, and every "
            f"model with --to onnx{other}"
        )
    for name, expected in (
        ("ngram_embedding", 1), ("norm_place", "before"), ("qk_norm", False), ("softcap", 0.0),
    ):  # fmt: skip
        if (value := getattr(config, name)) != expected:
            raise MoreishError(f"{program} has no model with model.{name}={value}{other}")
    block: Any = model.blocks[0]
    own: Tree = {}
    # Several of their names map to one of ours; the first of them is written.
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    parts = config.positions, config.norm, config.feedforward
    if parts[:2] == ("learned", "layer") and config.feedforward in activations:
        if config.kv_heads not in (None, config.heads):
            raise MoreishError("GPT-2 has no grouped-query attention (model.kv_heads)")
        name, default_eps = "gpt2", 1e-5
        own = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout)
        own["activation_function"] = activations[config.feedforward]
    elif parts == ("rotary", "rms", "swiglu"):
        if config.bias:
            raise MoreishError("Llama has no biases: train with model.bias=false")
        if model.head_width % 2:
            raise MoreishError("Llama needs an even head width (model.width / model.heads)")
        name, default_eps = "llama", torch.finfo(torch.float32).eps
        own = {
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
            "hidden_act": "silu",
            "attention_dropout": config.dropout,
        }
    else:
        raise MoreishError(
            f"only two architectures can be exported to {program}: GPT-2 (model.positions=learned, "
            "norm=layer, feedforward=gelu) and Llama (positions=rotary, norm=rms, "
            "feedforward=swiglu, bias=false)"
        )
    architecture = ARCHITECTURES[name]
    values = {
        **config.model_dump(),
        "kv_heads": config.kv_heads or config.heads,
        "feedforward_width": block.feedforward.down.in_features,
        "norm_eps": default_eps if config.norm_eps is None else config.norm_eps,
    }
    hf_config = {
        "architectures": [architecture.class_name],
        "model_type": name,
        "torch_dtype": "float32",
        "vocab_size": tokenizer.vocab_size,
        "tie_word_embeddings": config.tied,
        "bos_token_id": tokenizer.boundary_id,
        "eos_token_id": tokenizer.boundary_id,
        **{theirs: values[ours] for ours, theirs in architecture.settings.items()},
        **own,
    }
    return model, hf_config, architecture.tensor_maps(config.layers, tied=config.tied)


def hf_tensors(
    model: GPT, tensor_maps: list[TensorMap], *, transpose: bool = True
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the other architecture, under their names without a prefix.

    A bias that the model lacks becomes zeros.
    """
    state = model.state_dict()
    block: Any = model.blocks[0]
    kv_width = block.attention.num_kv_heads * model.head_width
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
            yield theirs, part.mT if transpose and tensor_map.transposed else part


def tokenizer_to_hf(tokenizer: Tokenizer) -> Tree:
    """Return the tokenizer in the format of the `tokenizers` library.

    It adds the boundary before a text, if there is one, as our own sampling does.
    """
    if isinstance(tokenizer, BPETokenizer):
        converted = tokenizer.to_json()
    else:
        converted = _vocabulary_to_hf(tokenizer)
    if (name := _boundary_name(tokenizer)) is None:
        return converted
    boundary: Tree = {"SpecialToken": {"id": name, "type_id": 0}}
    texts = [{"Sequence": {"id": text, "type_id": 0}} for text in "AB"]
    special = {"id": name, "ids": [tokenizer.boundary_id], "tokens": [name]}
    template: Tree = {
        "type": "TemplateProcessing",
        "single": [boundary, texts[0]],
        "pair": [boundary, texts[0], boundary, texts[1]],
        "special_tokens": {name: special},
    }
    return {**converted, "post_processor": template}


def _boundary_name(tokenizer: Tokenizer) -> str | None:
    if tokenizer.boundary_id is None:
        return None
    added = tokenizer.to_json().get("added_tokens") or [{"content": END_OF_TEXT, "id": 0}]
    return next(str(t["content"]) for t in added if t["id"] == tokenizer.boundary_id)


def _vocabulary_to_hf(tokenizer: Tokenizer) -> Tree:
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as HFTokenizer

    specials = [] if tokenizer.boundary_id is None else [END_OF_TEXT]
    if isinstance(tokenizer, ByteTokenizer):
        ids = {character: byte + len(specials) for character, byte in UNICODE_TO_BYTE.items()}
        converted = HFTokenizer(models.BPE({**ids, **dict.fromkeys(specials, 0)}, []))
        converted.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        converted.decoder = decoders.ByteLevel()
    elif isinstance(tokenizer, CharTokenizer):
        ids = {token: i for i, token in enumerate([*specials, *tokenizer.characters])}
        converted = HFTokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
        # Unlike ".", this matches line breaks too.
        converted.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        converted.decoder = decoders.Fuse()
    else:
        raise MoreishError(f"transformers has no tokenizer like '{tokenizer.name}'")
    converted.add_special_tokens(specials)
    return json.loads(converted.to_str())


def _tokenizer_config(run: Run) -> Tree:
    config: Tree = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": run.model.max_length,
        "clean_up_tokenization_spaces": False,
    }
    if (name := _boundary_name(run.tokenizer)) is not None:
        config |= {"bos_token": name, "eos_token": name}
    return config
