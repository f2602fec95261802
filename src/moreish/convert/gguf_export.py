"""Exports GPTs as GGUF files and checks them with llama.cpp.

B batch, T time, C width, V vocabulary, K the candidate tokens that llama.cpp reports.
"""

import json
import shlex
import subprocess
import sys
from contextlib import closing
from copy import deepcopy
from functools import partial
from http.client import HTTPConnection
from importlib import import_module
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from moreish.convert import llama_server
from moreish.convert.exporter import (
    GREEDY_TOKENS,
    Exporter,
    ParityError,
    ParityResult,
    max_abs_difference,
)
from moreish.convert.gguf_vocab import GGUFVocabulary, gguf_vocabulary
from moreish.convert.hf_architectures import ARCHITECTURES
from moreish.convert.hf_export import hf_tensors, map_to_hf
from moreish.errors import MoreishError
from moreish.models import GPT, FeedForward
from moreish.runs import Run
from moreish.settings import Tree
from moreish.tokenizers import Tokenizer
from moreish.utils.files import fsync_file

TOLERANCE = 1e-3
"""The largest difference of log-probabilities that passes the parity check, on top of twice what
half-precision GELU changes: llama.cpp looks GELU up in a float16 table, and two neighboring inputs
may be rounded in opposite directions."""

MIN_LOG_PROBABILITY = -30.0
"""Smaller log-probabilities are not compared: llama.cpp rounds such probabilities to zero."""

MAX_CANDIDATES = 256
"""How many of the most likely tokens are compared at each position."""

TENSOR_NAMES = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output",
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
    "embed_tokens": "token_embd", "norm": "output_norm",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
"""The names of tensors in GGUF, by their names in transformers."""

CONFIG_WRITERS = {
    "context": "add_context_length",
    "width": "add_embedding_length",
    "layers": "add_block_count",
    "feedforward_width": "add_feed_forward_length",
    "heads": "add_head_count",
    "kv_heads": "add_head_count_kv",
    "norm_eps": "add_layer_norm_eps",
}
"""The method of `gguf.GGUFWriter` for each setting of a GPT. Llama has another one for RMS norm."""


@final
class GGUFExporter(Exporter):
    """Writes model.gguf: weights, tokenizer and settings in one file."""

    program = "llama.cpp"
    libraries = ("gguf", "xllamacpp")
    library_name = "gguf"
    main_file = "model.gguf"
    quantity = "log-probabilities"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.model, self.config, self.tensor_maps = map_to_hf(run, self.program)
        self.architecture = self.config["model_type"]
        self.vocabulary = gguf_vocabulary(run.tokenizer)
        if self.config.get("activation_function", "gelu_new") != "gelu_new":
            raise MoreishError("llama.cpp's GPT-2 supports only model.feedforward=gelu")
        if self.model.context < 2:
            raise MoreishError("llama.cpp cannot generate with a context of one token")

    def write(self, folder: Path) -> None:
        path = folder / self.main_file
        writer = import_module("gguf").GGUFWriter(path, self.architecture)
        writer.add_name(self.run.path.resolve().name)
        writer.add_file_type(0)  # all weights are float32
        writer.add_vocab_size(self.model.vocab_size)
        writers = dict(CONFIG_WRITERS)
        if self.architecture == "llama":
            writers["norm_eps"] = "add_layer_norm_rms_eps"
            writer.add_rope_dimension_count(self.model.head_width)
            writer.add_rope_freq_base(self.config["rope_parameters"]["rope_theta"])
        for ours, theirs in ARCHITECTURES[self.architecture].settings.items():
            getattr(writer, writers[ours])(self.config[theirs])
        _add_vocabulary(writer, self.vocabulary)
        for name, tensor in self._gguf_tensors().items():
            writer.add_tensor(name, tensor.detach().float().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        fsync_file(path)

    def _gguf_tensors(self) -> dict[str, Tensor]:
        tensors = {}
        # Unlike GPT-2 in transformers, GGUF stores matrices as `nn.Linear` does.
        for name, tensor in hf_tensors(self.model, self.tensor_maps, transpose=False):
            stem, _, end = name.rpartition(".")
            block = ""
            if stem.startswith(("h.", "layers.")):
                _, number, stem = stem.split(".", 2)
                block = f"blk.{number}."
            if stem.endswith(("q_proj", "k_proj")):
                tensor = interleave_rotary(tensor, self.model.head_width)
            tensors[f"{block}{TENSOR_NAMES[stem]}.{end}"] = tensor
        return tensors

    def usage(self) -> str:
        context = self.model.context
        prompt = (
            ""
            if self.run.tokenizer.boundary_id is not None
            else f" --prompt {shlex.quote(self.example_prompt())}"
        )
        return f"""
```
llama-completion --model model.gguf --ctx-size {context} --predict {min(200, context - 1)}{prompt}
```

Any other program built on llama.cpp works too. The context is {context:,} tokens. By default
llama.cpp caches keys and values in half precision; this export was checked with
`--cache-type-k f32 --cache-type-v f32`. `llama-quantize` makes a smaller file.
"""

    @torch.inference_mode()
    def check_parity(self, folder: Path) -> ParityResult:
        model, observed = self.model, []
        with closing(LlamaServer(folder / self.main_file, model, self.run.tokenizer)) as server:
            text = self.validation_text()
            self.check_encoding(text, server.tokenize(text))
            for length in sorted({1, max(1, model.context // 2), model.context - 1}):
                rng = np.random.default_rng(length)
                tokens = rng.integers(model.vocab_size, size=length).tolist()
                observed.append((tokens, [server.next_log_probabilities(tokens)]))
            prompt = server.tokenize(self.prompt(text))
            tokens, candidates = [*prompt], []
            for _ in range(min(GREEDY_TOKENS, model.context - len(prompt))):
                candidates.append(server.next_log_probabilities(tokens))
                tokens.append(next(iter(candidates[-1])))
            if candidates:
                observed.append((tokens[:-1], candidates))
        per_position = [each for _, candidates in observed for each in candidates]
        actual = torch.cat([_renormalize(torch.tensor([*each.values()])) for each in per_position])
        expected = _log_probabilities(model, observed)
        compared = expected > MIN_LOG_PROBABILITY
        difference = max_abs_difference(actual[compared], expected[compared])
        rounded = _log_probabilities(_with_float16_gelu(model), observed)
        tolerance = TOLERANCE + 2 * max_abs_difference(rounded[compared], expected[compared])
        # Two tokens may swap ranks if each is off by the tolerance, in opposite directions.
        return self.parity_result(
            difference, tolerance, prompt, tokens[len(prompt) :], 2 * tolerance
        )


def _add_vocabulary(writer: Any, vocabulary: GGUFVocabulary) -> None:
    types, size = import_module("gguf").TokenType, len(vocabulary.tokens)
    kinds = [types.CONTROL if i in vocabulary.special else types.NORMAL for i in range(size)]
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(kinds)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.eos is not None:
        writer.add_bos_token_id(vocabulary.eos)
        writer.add_eos_token_id(vocabulary.eos)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def interleave_rotary(weight: Tensor, head_width: int) -> Tensor:
    """Reorder the rows of a query or key matrix for llama.cpp's rotary embedding, which rotates
    component d with d + 1, not with d + head_width / 2."""
    heads = weight.unflatten(0, (-1, 2, head_width // 2))
    return heads.transpose(1, 2).flatten(0, 2)


Observations = list[tuple[list[int], list[dict[int, float]]]]
"""Tokens that llama.cpp read, and the log-probabilities of its candidates after the last ones."""


def _log_probabilities(model: GPT, observed: Observations) -> Tensor:
    """Return the log-probabilities of all observed candidates according to `model`."""
    found = []
    for tokens, candidates in observed:
        logits_BTV, _ = model(torch.tensor([tokens]))
        for logits_V, per_token in zip(logits_BTV[0, -len(candidates) :], candidates, strict=True):
            found.append(_renormalize(logits_V[list(per_token)]))
    return torch.cat(found)


def _renormalize(log_K: Tensor) -> Tensor:
    """Normalize over the candidates alone: llama.cpp sums a large vocabulary in float32, which is
    off by a thousandth."""
    return log_K.double().log_softmax(dim=0)


def _with_float16_gelu(model: GPT) -> GPT:
    """Return a copy of the model that looks GELU up in a float16 table, as llama.cpp does."""
    model = deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, FeedForward) and layer.activation == "gelu":
            layer.forward = partial(_forward_float16, layer)  # type: ignore[method-assign]
    return model


def _forward_float16(layer: FeedForward, x_BTC: Tensor) -> Tensor:
    up = layer.up(x_BTC)
    inner = F.gelu(up.half().float(), approximate="tanh").half().float()
    return layer.down(torch.where(up.abs() < 10, inner, up.relu()))


class LlamaServer:
    """llama.cpp's HTTP server, which accepts only local connections until it is closed."""

    def __init__(self, path: Path, model: GPT, tokenizer: Tokenizer) -> None:
        self._num_candidates = min(model.vocab_size, MAX_CANDIDATES)
        self._text_token = next(i for i in range(model.vocab_size) if _is_text(tokenizer, i))
        settings = {
            "path": str(path),
            "context": model.context,
            "threads": torch.get_num_threads(),
        }
        self._process = subprocess.Popen(  # noqa: S603 (our own script)
            [sys.executable, "-P", llama_server.__file__, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        # llama.cpp's own messages may precede the address.
        lines = map(str.strip, self._process.stdout)
        answers = (line for line in lines if line.startswith(("http", "error: ")))
        answer = next(answers, "error: llama.cpp's server ended")
        if answer.startswith("error: "):
            self._end()
            raise ParityError(f"it cannot read the file: {answer.removeprefix('error: ')}")
        address = urlsplit(answer)
        self._connection = HTTPConnection(str(address.hostname), address.port)

    def close(self) -> None:
        self._connection.close()
        self._end()

    def _end(self) -> None:
        with self._process:  # closes its pipes and waits
            self._process.kill()

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a prompt, with the boundary that llama.cpp adds, if any."""
        body = {"content": text, "add_special": True, "parse_special": False}
        return self._post("/tokenize", body)["tokens"]

    def next_log_probabilities(self, tokens: list[int]) -> dict[int, float]:
        """Return the log-probabilities of the most likely next tokens, the highest first."""
        body = {
            "prompt": tokens,
            "n_predict": 1,
            "n_probs": self._num_candidates,
            # The server omits the probabilities if the generated token is part of a character, so
            # the bias makes it generate a text token. Probabilities are from before the bias.
            "logit_bias": [[self._text_token, 1e9]],
            "temperature": 0,
        }
        (position,) = self._post("/completion", body)["completion_probabilities"]
        return {each["id"]: each["logprob"] for each in position["top_logprobs"]}

    def _post(self, path: str, body: Tree) -> Any:
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", path, json.dumps(body), headers)
        response = json.loads(self._connection.getresponse().read())
        if "error" in response:
            raise ParityError(str(response["error"].get("message", response["error"])))
        return response


def _is_text(tokenizer: Tokenizer, token: int) -> bool:
    """Return whether a token is text by itself, not part of a character."""
    text = tokenizer.tokens[token].decode("utf-8", "replace")
    return bool(text) and "\ufffd" not in text
