"""Imports GPT-2 and Llama models in the format of Hugging Face transformers.

A model folder holds config.json, tokenizer.json and the weights as safetensors, in one file or in
several files with an index.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import torch

from moreish.config import resolve
from moreish.errors import MoreishError
from moreish.models import ROTARY_BASE, Model, build_model
from moreish.runs import DatasetInfo, Run, check_run_path
from moreish.settings import Tree
from moreish.tokenizers import Tokenizer, tokenizer_from_json
from moreish.utils.files import read_json

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

INDEX = "model.safetensors.index.json"

ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu": "gelu-exact",
    "relu": "relu",
}
"""The values of `model.feedforward`, by the names that transformers uses."""

GPT2_SIZES = {
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}
"""Layers, heads and width, by name on the Hub."""

VOCABULARY_TENSORS = ("embedding.weight", "head.weight")
"""Our tensors with one row per token; the source may have more rows, which no token uses."""

BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Suffixes of tensors that are not weights."""


@dataclass(frozen=True, kw_only=True)
class TensorMap:
    """How one tensor of a Moreish GPT is made from tensors of transformers."""

    ours: str
    theirs: tuple[str, ...]
    """Concatenated along the first dimension."""
    transposed: bool = False
    """Whether theirs are (in, out), unlike `nn.Linear`."""


def import_hf(path: Path, out: Path, *, overwrite: bool = False) -> Run:
    """Creates a run with the model and tokenizer of a transformers folder, and without data.

    Raises:
        MoreishError: the folder is damaged or holds another architecture, or `out` exists.
    """
    check_run_path(out, overwrite=overwrite)
    model_settings, maps_of = _read_config(path)
    source = path.resolve()
    data = {"source": str(source), "kind": "text", "tokenizer": str(source / "tokenizer.json")}
    config = resolve({"data": data, "model": model_settings})
    tokenizer = _load_tokenizer(path)
    tensor_maps = list(maps_of(model_settings["layers"]))
    with ExitStack() as stack:
        weights = _ShardedWeights(path, stack)
        with torch.device("meta"):  # checks the shapes before any memory is allocated
            weights.check(tensor_maps, build_model(config.model, tokenizer.vocab_size))
        model = build_model(config.model, tokenizer.vocab_size)
        weights.copy_into(model, tensor_maps)
    facts = _data_facts(path, tokenizer)
    run = Run.create(out, config, tokenizer, {}, facts, overwrite=overwrite)
    run.save_weights(model)
    run.update(status="finished", parameters=model.num_parameters())
    return Run.open(out)


def checkpoint_digest(path: Path) -> str:
    """Returns a note that identifies the weights, config and tokenizer of a folder."""
    digest = hashlib.sha256()
    for file in sorted([*path.glob("*.json"), *path.glob("*.safetensors")]):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"sha256 of its files: {digest.hexdigest()}"


def load_model_settings(path: Path) -> Tree:
    """Returns the `model` settings of a transformers folder.

    Raises:
        MoreishError: config.json is missing or damaged, or describes another architecture.
    """
    return _read_config(path)[0]


def gpt2_settings(name: str) -> Tree | None:
    """Returns the `model` settings of a published GPT-2 without downloading it; None if `name`
    is not one."""
    layers, heads, width = GPT2_SIZES.get(name.removeprefix("openai-community/"), (0, 0, 0))
    if not layers:
        return None
    config = {"n_layer": layers, "n_head": heads, "n_embd": width, "n_positions": 1024}
    return _gpt2_settings(config, tied=True)


def resolve_model_folder(source: str) -> Path:
    """Returns the folder `source`; if there is none, downloads the model of that name from the Hub.

    Raises:
        MoreishError: there is no such folder or model, or the Hub cannot be reached.
    """
    if not source:
        raise MoreishError("name a model: a folder, or its name on the Hub (hf:NAME)")
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if not HUB_NAME.fullmatch(source):
        raise MoreishError(f"no folder {source}")
    try:
        from huggingface_hub import snapshot_download

        files = ["config.json", "tokenizer.json", "*.safetensors", INDEX]
        return Path(snapshot_download(source, allow_patterns=files))
    except ImportError:
        raise MoreishError(
            f"no folder {source}; to download a model of that name: pip install 'moreish[bpe]'"
        ) from None
    except Exception as error:  # the library raises many types
        reason = " ".join(str(error).split())[:200]
        raise MoreishError(
            f"{source} cannot be downloaded ({reason}): download it elsewhere and name its folder"
        ) from None


MapsOf = Callable[[int], Iterator[TensorMap]]
"""Gives the tensor maps of a model with so many layers."""


def _read_config(path: Path) -> tuple[Tree, MapsOf]:
    config = _read_object(path, "config.json")
    architecture = config.get("model_type")
    try:
        if architecture == "gpt2":
            tied = bool(config.get("tie_word_embeddings", True))
            return _gpt2_settings(config, tied=tied), partial(gpt2_tensors, tied=tied)
        if architecture == "llama":
            tied = bool(config.get("tie_word_embeddings", False))
            return _llama_settings(config, tied=tied), partial(llama_tensors, tied=tied)
    except MoreishError:  # is a ValueError too
        raise
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise MoreishError(f"{path / 'config.json'} is damaged: {error!r}") from None
    raise MoreishError(
        f"{path} holds a model of type {architecture!r}: only gpt2 and llama can be imported"
    )


def _check_supported(name: str, value: Any, supported: Any) -> None:
    if value != supported:
        raise MoreishError(f"{name}={value} is not supported, only {supported}")


def _gpt2_settings(config: Tree, *, tied: bool) -> Tree:
    activation = config.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        raise MoreishError(
            f"activation_function={activation} is not supported, only {', '.join(ACTIVATIONS)}"
        )
    for name, supported in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        _check_supported(name, config.get(name, supported), supported)
    return {
        "name": "gpt",
        "layers": config["n_layer"],
        "heads": config["n_head"],
        "width": config["n_embd"],
        "context": config["n_positions"],
        "tied": tied,
        "norm_eps": config.get("layer_norm_epsilon", 1e-5),
        "feedforward": ACTIVATIONS[activation],
        "feedforward_width": config.get("n_inner") or 4 * config["n_embd"],
    }


def gpt2_tensors(layers: int, *, tied: bool = True) -> Iterator[TensorMap]:
    """Yields the tensor maps of a GPT-2; names of theirs are without the common prefix."""
    yield TensorMap(ours="embedding.weight", theirs=("wte.weight",))
    yield TensorMap(ours="position.weight", theirs=("wpe.weight",))
    for i in range(layers):
        for ours, theirs, transposed in (
            ("attention.qkv", "attn.c_attn", True),
            ("attention.out", "attn.c_proj", True),
            ("feedforward.up", "mlp.c_fc", True),
            ("feedforward.down", "mlp.c_proj", True),
            ("norm_attention", "ln_1", False),
            ("norm_feedforward", "ln_2", False),
        ):
            weight, bias = (f"h.{i}.{theirs}.{end}" for end in ("weight", "bias"))
            yield TensorMap(
                ours=f"blocks.{i}.{ours}.weight", theirs=(weight,), transposed=transposed
            )
            yield TensorMap(ours=f"blocks.{i}.{ours}.bias", theirs=(bias,))
    yield TensorMap(ours="norm.weight", theirs=("ln_f.weight",))
    yield TensorMap(ours="norm.bias", theirs=("ln_f.bias",))
    yield TensorMap(ours="head.weight", theirs=("wte.weight" if tied else "lm_head.weight",))


def _llama_settings(config: Tree, *, tied: bool) -> Tree:
    width, heads = config["hidden_size"], config["num_attention_heads"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for name, value, supported in (
        ("hidden_act", config.get("hidden_act", "silu"), "silu"),
        ("attention_bias", config.get("attention_bias", False), False),
        ("mlp_bias", config.get("mlp_bias", False), False),
        ("head_dim", config.get("head_dim") or width // heads, width // heads),
        ("rope_type", rope.get("rope_type", rope.get("type", "default")), "default"),
    ):
        _check_supported(name, value, supported)
    return {
        "name": "gpt",
        "layers": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "width": width,
        "context": config["max_position_embeddings"],
        "tied": tied,
        "bias": False,
        "positions": "rotary",
        "rotary_base": rope.get("rope_theta") or config.get("rope_theta") or ROTARY_BASE,
        "norm": "rms",
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "feedforward": "swiglu",
        "feedforward_width": config["intermediate_size"],
    }


def llama_tensors(layers: int, *, tied: bool) -> Iterator[TensorMap]:
    """Yields the tensor maps of a Llama; names of theirs are without the common prefix."""
    yield TensorMap(ours="embedding.weight", theirs=("embed_tokens.weight",))
    for i in range(layers):
        for ours, theirs in (
            ("norm_attention", ("input_layernorm",)),
            ("attention.qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("attention.out", ("self_attn.o_proj",)),
            ("norm_feedforward", ("post_attention_layernorm",)),
            ("feedforward.up", ("mlp.gate_proj", "mlp.up_proj")),
            ("feedforward.down", ("mlp.down_proj",)),
        ):
            names = tuple(f"layers.{i}.{name}.weight" for name in theirs)
            yield TensorMap(ours=f"blocks.{i}.{ours}.weight", theirs=names)
    yield TensorMap(ours="norm.weight", theirs=("norm.weight",))
    head = "embed_tokens.weight" if tied else "lm_head.weight"
    yield TensorMap(ours="head.weight", theirs=(head,))


class _ShardedWeights:
    """The tensors of one or several safetensors files, by name without the common prefix."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        """Opens the files, which `stack` closes. Raises MoreishError if one cannot be read."""
        self.path = path
        self._tensors: dict[str, tuple[Any, str]] = {}
        shards = ["model.safetensors"]
        if (path / INDEX).is_file():
            index = _read_object(path, INDEX).get("weight_map")
            if not isinstance(index, dict) or not all(map(_is_file_name, index.values())):
                raise MoreishError(f"{path / INDEX} is damaged: it names no files")
            shards = sorted(set(index.values()))
        for shard in shards:
            if not (path / shard).is_file():
                raise MoreishError(
                    f"{path} holds no {shard}: weights must be in the safetensors format"
                )
            try:
                file = stack.enter_context(safetensors.safe_open(path / shard, framework="pt"))
                for key in file.keys():  # noqa: SIM118 (it is not a dict)
                    name = key.removeprefix("transformer.").removeprefix("model.")
                    self._tensors[name] = file, key
            except (OSError, safetensors.SafetensorError) as error:
                raise MoreishError(f"{path / shard} is damaged: {error}") from None

    def check(self, tensor_maps: list[TensorMap], model: Model) -> None:
        """Raises MoreishError if a tensor is missing, unknown, or has another shape."""
        known = {name for each in tensor_maps for name in each.theirs} | {"lm_head.weight"}
        for name in sorted(self._tensors):
            if name not in known and not name.endswith(BUFFERS):
                raise MoreishError(f"{self.path} has an unknown tensor: {name}")
        state = model.state_dict()
        assert set(state) == {each.ours for each in tensor_maps}
        for each in tensor_maps:
            shapes = [self._shape(name) for name in each.theirs]
            if each.transposed:
                shapes = [shape[::-1] for shape in shapes]
            actual = (sum(shape[0] for shape in shapes), *shapes[0][1:])
            expected = tuple(state[each.ours].shape)
            extra = actual[0] - expected[0]
            fits = extra == 0 or (extra > 0 and each.ours in VOCABULARY_TENSORS)
            if actual[1:] != expected[1:] or not fits:
                raise MoreishError(
                    f"{self.path} is damaged: the shape of {each.theirs[0]} is {actual}, not "
                    f"{expected}"
                )

    def _shape(self, name: str) -> list[int]:
        if name not in self._tensors:
            raise MoreishError(f"{self.path} is damaged: {name} is missing")
        file, key = self._tensors[name]
        shape: list[int] = file.get_slice(key).get_shape()
        return shape or [0]

    @torch.no_grad()
    def copy_into(self, model: Model, tensor_maps: list[TensorMap]) -> None:
        """Copies the tensors into `model`, one after another to save memory."""
        state = model.state_dict()
        for each in tensor_maps:
            sources = [self._tensors[name] for name in each.theirs]
            tensors = [file.get_tensor(key) for file, key in sources]
            tensor = torch.cat([t.mT if each.transposed else t for t in tensors])
            target = state[each.ours]
            target.copy_(tensor[: len(target)])


def _load_tokenizer(path: Path) -> Tokenizer:
    if not (path / "tokenizer.json").is_file():
        raise MoreishError(f"{path} holds no tokenizer.json, which Moreish needs")
    data = _read_object(path, "tokenizer.json")
    try:
        return tokenizer_from_json(data, boundary=bool(data.get("added_tokens")))
    except MoreishError as error:
        raise MoreishError(f"{path / 'tokenizer.json'}: {error}") from None


def _data_facts(path: Path, tokenizer: Tokenizer) -> DatasetInfo:
    return DatasetInfo(
        name=path.resolve().name,
        kind="text",
        documents=0,
        distinct=0,
        characters=0,
        shortest=0,
        longest=0,
        longest_item=None,
        vocabulary=tokenizer.vocab_size,
        boundary=tokenizer.boundary_id is not None,
        alphabet="",
        split_documents=None,
        tokens={},
        sha256={},
        notes=["the model was trained elsewhere; its data is not here", checkpoint_digest(path)],
    )


def _read_object(path: Path, name: str) -> Tree:
    """Reads a JSON file that must hold an object."""
    try:
        content = read_json(path / name)
    except FileNotFoundError:
        raise MoreishError(f"{path} holds no {name}: is it a model folder?") from None
    except (OSError, ValueError) as error:
        raise MoreishError(f"{path / name} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise MoreishError(f"{path / name} is damaged: it is not a JSON object")
    return content


def _is_file_name(name: Any) -> bool:
    """Returns whether `name` is a file in the folder itself, and not a path to another."""
    return isinstance(name, str) and Path(name).name == name and name not in ("", ".", "..")
