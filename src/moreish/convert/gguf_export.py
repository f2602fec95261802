"""Runs as GGUF files, checked with llama.cpp.

T time, V vocabulary, K tokens of it that were told of.
"""

import json
from copy import deepcopy
from dataclasses import replace
from http.client import HTTPConnection
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
from moreish.convert.gguf_vocab import Vocabulary, vocabulary
from moreish.convert.hf_export import described, weights_of
from moreish.errors import MoreishError
from moreish.models import GPT, Block, FeedForward
from moreish.runs import Run
from moreish.settings import Tree
from moreish.tokenizers import Tokenizer
from moreish.utils.files import fsync_file

TOLERANCE = 1e-3
"""Of log-probabilities; beside what llama.cpp's GELU, which is a table of half-precision numbers,
makes of those of the model, twice: numbers next to each other may be rounded apart."""

LIKELY = -30.0
"""Log-probabilities below this are not compared: llama.cpp rounds their probabilities to zero."""

MOST = 256
"""Tokens whose probabilities are compared at each place, the likeliest ones."""

NAMES = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output",
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
    "embed_tokens": "token_embd", "norm": "output_norm",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
"""Of tensors: transformers' for llama.cpp's."""


@final
class ToLlamaCpp(Export):
    """A folder with model.gguf: weights, tokenizer and settings in one file."""

    program = "llama.cpp"
    libraries = ("gguf", "xllamacpp")
    library_name = "gguf"
    main_file = "model.gguf"
    compared = "log-probabilities"

    def __init__(self, run: Run) -> None:
        """Raises MoreishError when llama.cpp cannot express the run."""
        self.run = run
        self.model, self.settings, parts = described(run, self.program)
        self.kind = self.settings["model_type"]
        self.vocabulary = vocabulary(run.tokenizer)
        self.parts = [replace(part, turned=False) for part in parts]
        if self.settings.get("activation_function", "gelu_new") != "gelu_new":
            raise MoreishError("llama.cpp's GPT-2 has no other GELU than model.feedforward=gelu")
        if self.model.context < 2:
            raise MoreishError("llama.cpp writes nothing with a context of one token")

    @classmethod
    def of(cls, run: Run) -> Self:
        return cls(run)

    def write(self, folder: Path) -> None:
        path = folder / self.main_file
        writer = import_module("gguf").GGUFWriter(path, self.kind)
        writer.add_name(self.run.path.resolve().name)
        writer.add_file_type(0)  # all numbers float32
        writer.add_vocab_size(self.model.vocab_size)
        _add_settings(writer, self.settings)
        _add_vocabulary(writer, self.vocabulary)
        for name, tensor in self._tensors().items():
            writer.add_tensor(name, tensor.detach().float().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        fsync_file(path)

    def _tensors(self) -> dict[str, Tensor]:
        """By the names that llama.cpp has for them."""
        tensors = {}
        for name, tensor in weights_of(self.model, self.parts):
            stem, _, end = name.rpartition(".")
            block = ""
            if stem.startswith(("h.", "layers.")):
                _, number, stem = stem.split(".", 2)
                block = f"blk.{number}."
            if stem.endswith(("q_proj", "k_proj")):
                tensor = _interleaved(tensor, self.model.head_width)
            tensors[f"{block}{NAMES[stem]}.{end}"] = tensor
        return tensors

    def usage(self) -> str:
        context = self.model.context
        begun = "" if self.run.tokenizer.boundary_id is not None else ' --prompt "The "'
        return f"""
```
llama-completion --model model.gguf --ctx-size {context} --predict {min(200, context - 1)}{begun}
```

or any other program that is made with llama.cpp. It keeps keys and values in half precision unless
told otherwise (`--cache-type-k f32 --cache-type-v f32`); the check was made without that. The model
holds {context:,} tokens. `llama-quantize` makes smaller files of this one.
"""

    @torch.inference_mode()
    def agreement(self, folder: Path) -> Agreement:
        run, model = self.run, self.model
        first, told = first_token(run), []
        with _LlamaCpp(folder / self.main_file, model, run.tokenizer) as theirs:
            text = some_text(run)
            ids = run.tokenizer.encode(text).tolist()
            begun = [] if run.tokenizer.boundary_id is None else [first]
            if theirs.tokens(text) != [*begun, *ids]:
                raise DisagreementError(f"{text[:30]!r} becomes other tokens")
            for length in sorted({1, max(1, model.context // 2), model.context - 1}):
                random = np.random.default_rng(length).integers(model.vocab_size, size=length)
                told.append((random.tolist(), [theirs.likeliest(random.tolist())]))
            read, logs = [first], []
            for _ in range(min(GREEDY, model.context - 1)):
                logs.append(theirs.likeliest(read))
                read.append(next(iter(logs[-1])))
            told.append((read[:-1], logs))
        logs_of = [torch.tensor(list(given.values())) for _, logs in told for given in logs]
        found = torch.cat([_among_themselves(log_K) for log_K in logs_of])
        expected = _log_probabilities(model, told)
        likely = expected > LIKELY
        difference = largest_difference(found[likely], expected[likely])
        rounded = _log_probabilities(_with_half_gelu(model), told)
        allowed = TOLERANCE + 2 * largest_difference(rounded[likely], expected[likely])
        if not difference < allowed:
            raise DisagreementError(f"log-probabilities differ by {difference:.2g}")
        # Two tokens may change places when both are off, in opposite directions.
        alike, ties = greedy_agreement(model, first, read[1:], 2 * allowed)
        return Agreement(difference=difference, alike=alike, ties=ties)


def _add_settings(writer: Any, settings: Tree) -> None:
    """Of a config.json of transformers."""
    if settings["model_type"] == "gpt2":
        writer.add_context_length(settings["n_positions"])
        writer.add_embedding_length(settings["n_embd"])
        writer.add_block_count(settings["n_layer"])
        writer.add_feed_forward_length(settings["n_inner"])
        writer.add_head_count(settings["n_head"])
        writer.add_layer_norm_eps(settings["layer_norm_epsilon"])
        return
    heads, width = settings["num_attention_heads"], settings["hidden_size"]
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(settings["num_key_value_heads"])
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(settings["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])


def _add_vocabulary(writer: Any, found: Vocabulary) -> None:
    kinds = import_module("gguf").TokenType
    writer.add_tokenizer_model(found.model)
    writer.add_tokenizer_pre(found.words)
    writer.add_token_list(found.tokens)
    special = [
        kinds.CONTROL if i in found.special else kinds.NORMAL for i in range(len(found.tokens))
    ]
    writer.add_token_types(special)
    if found.merges:
        writer.add_token_merges(found.merges)
    if found.end is not None:
        writer.add_bos_token_id(found.end)
        writer.add_eos_token_id(found.end)
    writer.add_add_bos_token(found.begins)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _interleaved(weight: Tensor, head_width: int) -> Tensor:
    """The rows of queries or keys as llama.cpp turns them: component d beside d + half, where ours
    are half the head apart."""
    heads = weight.unflatten(0, (-1, 2, head_width // 2))
    return heads.transpose(1, 2).flatten(0, 2)


Told = list[tuple[list[int], list[dict[int, float]]]]
"""Tokens, and the log-probabilities after the last ones of them."""


def _log_probabilities(model: GPT, told: Told) -> Tensor:
    """All that were told, as the model has them."""
    found = []
    for read, logs in told:
        logits_BTV, _ = model(torch.tensor([read]))
        for logits_V, given in zip(logits_BTV[0, -len(logs) :], logs, strict=True):
            found.append(_among_themselves(logits_V[list(given)]))
    return torch.cat(found)


def _among_themselves(log_K: Tensor) -> Tensor:
    """Log-probabilities of the tokens that were told, as if there were no others: what llama.cpp
    sums up over a large vocabulary in single precision is off by a thousandth."""
    return log_K.double().log_softmax(dim=0)


def _with_half_gelu(model: GPT) -> GPT:
    """The model as llama.cpp computes it, which looks GELU up in a table of half-precision
    numbers."""
    model = deepcopy(model)
    for block in model.blocks:
        assert isinstance(block, Block)
        if block.feedforward is not None and block.feedforward.activation == "gelu":
            block._modules["feedforward"] = _HalfGELU(block.feedforward)
    return model


class _HalfGELU(nn.Module):
    def __init__(self, of: FeedForward) -> None:
        super().__init__()
        self.up, self.down = of.up, of.down

    def forward(self, x_BTC: Tensor) -> Tensor:
        up = self.up(x_BTC)
        inner = F.gelu(up.half().float(), approximate="tanh").half().float()
        return self.down(torch.where(up.abs() < 10, inner, up.relu()))


def _is_whole(tokenizer: Tokenizer, token: int) -> bool:
    """Whether a token is text, and not a part of a character."""
    text = tokenizer.decode(np.array([token]))
    return bool(text) and "\ufffd" not in text


class _LlamaCpp:
    """llama.cpp's own server, which listens to this machine alone while it is open."""

    def __init__(self, path: Path, model: GPT, tokenizer: Tokenizer) -> None:
        self._probed = min(model.vocab_size, MOST)
        self._harmless = next(i for i in range(model.vocab_size) if _is_whole(tokenizer, i))
        library = import_module("xllamacpp")
        asked = library.CommonParams()
        asked.model.path = str(path)
        asked.n_ctx = model.context
        asked.n_parallel = 1
        asked.n_gpu_layers = 0
        asked.warmup = False
        asked.fit_params = False
        asked.cache_ram_mib = 0
        asked.cache_type_k = asked.cache_type_v = library.ggml_type.GGML_TYPE_F32
        kinds = library.llama_flash_attn_type
        asked.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
        for threads in (asked.cpuparams, asked.cpuparams_batch):
            threads.n_threads = torch.get_num_threads()
        asked.verbosity = -1
        asked.hostnames = ["127.0.0.1"]
        asked.port = 0
        try:
            self._server = library.Server(asked)
        except RuntimeError as error:
            raise DisagreementError(f"it cannot read the file: {error}") from None
        place = urlsplit(self._server.listening_address)
        self._connection = HTTPConnection(str(place.hostname), place.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        del self._server

    def tokens(self, text: str) -> list[int]:
        """Of a text that is to be gone on with."""
        asked = {"content": text, "add_special": True, "parse_special": False}
        found: list[int] = self._asked("/tokenize", asked)["tokens"]
        return found

    def likeliest(self, read: list[int]) -> dict[int, float]:
        """The log-probabilities of the tokens that may come next, the likeliest first."""
        asked = {
            "prompt": read,
            "n_predict": 1,
            "n_probs": self._probed,
            # It tells nothing of a token that is part of a character, so it is to write another:
            # what it tells of all tokens is what was before that.
            "logit_bias": [[self._harmless, 1e9]],
            "temperature": 0,
        }
        (place,) = self._asked("/completion", asked)["completion_probabilities"]
        return {each["id"]: each["logprob"] for each in place["top_logprobs"]}

    def _asked(self, path: str, what: Tree) -> Any:
        self._connection.request(
            "POST", path, json.dumps(what), {"Content-Type": "application/json"}
        )
        answer = json.loads(self._connection.getresponse().read())
        if "error" in answer:
            raise DisagreementError(str(answer["error"].get("message", answer["error"])))
        return answer
