"""Folders as Hugging Face's transformers reads and writes them: GPT-2 and Llama.

A folder holds config.json, tokenizer.json and the weights as safetensors, in one file or in several
with an index.
"""

import hashlib
import json
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

NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""Of a model on the hub."""

INDEX = "model.safetensors.index.json"

ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu": "gelu-exact",
    "relu": "relu",
}
"""Their names for ours."""

GPT2_SIZES = {
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}
"""Layers, heads and width, by their names on the hub."""

ROWS = ("embedding.weight", "head.weight")
"""Ours, of which theirs may have rows that no token uses."""

IGNORED = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Ends of the names of tensors that are no weights."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of our tensors, made of theirs."""

    ours: str
    theirs: tuple[str, ...]
    """Put together along the first dimension."""
    turned: bool = False
    """Whether theirs has inputs before outputs."""


def import_hf(path: Path, out: Path, *, overwrite: bool = False) -> Run:
    """A run with the model and the tokenizer of a folder, and without data.

    Raises:
        MoreishError: the folder is damaged, holds another kind of model, or `out` exists.
    """
    check_run_path(out, overwrite=overwrite)
    model, parts_of = _read_config(path)
    place = path.resolve()
    data = {"source": str(place), "kind": "text", "tokenizer": str(place / "tokenizer.json")}
    config = resolve({"data": data, "model": model})
    tokenizer = _tokenizer(path)
    parts = list(parts_of(model["layers"]))
    with ExitStack() as opened:
        folder = _Folder(path, opened)
        with torch.device("meta"):  # shapes, before any memory is taken
            folder.check(parts, build_model(config.model, tokenizer.vocab_size))
        built = build_model(config.model, tokenizer.vocab_size)
        folder.fill(parts, built)
    facts = _no_data(path, tokenizer)
    run = Run.create(out, config, tokenizer, {}, facts, overwrite=overwrite)
    run.save_weights(built)
    run.update(status="finished", parameters=built.num_parameters())
    return Run.open(out)


def content_of(path: Path) -> str:
    """A note that is another one for other weights, settings or tokenizers in a folder."""
    found = hashlib.sha256()
    for file in sorted([*path.glob("*.json"), *path.glob("*.safetensors")]):
        with file.open("rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())
    return f"sha256 of its files: {found.hexdigest()}"


def described(path: Path) -> Tree:
    """Our settings of the model in a folder. Raises MoreishError when it is damaged, or of another
    kind."""
    return _read_config(path)[0]


def described_by_name(name: str) -> Tree | None:
    """Our settings of one of GPT-2's sizes, which need not be here to be known."""
    layers, heads, width = GPT2_SIZES.get(name.removeprefix("openai-community/"), (0, 0, 0))
    if not layers:
        return None
    sizes = {"n_layer": layers, "n_head": heads, "n_embd": width, "n_positions": 1024}
    return _gpt2(sizes, tied=True)


def fetched(source: str) -> Path:
    """The folder of that name; else that of a model on the hub, fetched into its cache.

    Raises:
        MoreishError: there is none, or the hub cannot be reached.
    """
    if not source:
        raise MoreishError("no model is named: give a folder, or a name on the hub (hf:NAME)")
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if not NAME.fullmatch(source):
        raise MoreishError(f"no folder {source}")
    try:
        from huggingface_hub import snapshot_download

        wanted = ["config.json", "tokenizer.json", "*.safetensors", INDEX]
        return Path(snapshot_download(source, allow_patterns=wanted))
    except ImportError:
        raise MoreishError(
            f"no folder {source}; to fetch a model of that name: pip install 'moreish[bpe]'"
        ) from None
    except Exception as error:  # of a library that has many
        reason = " ".join(str(error).split())[:200]
        raise MoreishError(
            f"{source} cannot be fetched ({reason}): name a folder that holds it"
        ) from None


def _read_config(path: Path) -> tuple[Tree, Callable[[int], Iterator[Part]]]:
    settings = _json(path, "config.json")
    try:
        return _understood(settings)
    except MoreishError:  # which is a ValueError too, and says enough
        raise
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise MoreishError(f"{path / 'config.json'} is damaged: {error!r}") from None


def _understood(settings: Tree) -> tuple[Tree, Callable[[int], Iterator[Part]]]:
    """Our settings of a model, and what the tensors of one with so many layers are made of."""
    kind = settings.get("model_type")
    if kind == "gpt2":
        tied = bool(settings.get("tie_word_embeddings", True))
        return _gpt2(settings, tied=tied), partial(gpt2_parts, tied=tied)
    if kind == "llama":
        tied = bool(settings.get("tie_word_embeddings", False))
        return _llama(settings, tied=tied), partial(llama_parts, tied=tied)
    raise MoreishError(f"a model of the kind {kind!r} is not known here: gpt2 and llama are")


def _gpt2(settings: Tree, *, tied: bool) -> Tree:
    activation = settings.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        raise MoreishError(f"activation_function={activation}: known are {', '.join(ACTIVATIONS)}")
    for name, expected in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        if settings.get(name, expected) is not expected:
            raise MoreishError(f"{name}={settings[name]} is not known here")
    return {
        "name": "gpt",
        "layers": settings["n_layer"],
        "heads": settings["n_head"],
        "width": settings["n_embd"],
        "context": settings["n_positions"],
        "tied": tied,
        "norm_eps": settings.get("layer_norm_epsilon", 1e-5),
        "feedforward": ACTIVATIONS[activation],
        "feedforward_width": settings.get("n_inner") or 4 * settings["n_embd"],
    }


def gpt2_parts(layers: int, *, tied: bool = True) -> Iterator[Part]:
    """What the tensors of a GPT-2 are made of; names without what all theirs begin with."""
    yield Part(ours="embedding.weight", theirs=("wte.weight",))
    yield Part(ours="position.weight", theirs=("wpe.weight",))
    for i in range(layers):
        for ours, theirs in (
            ("attention.qkv", "attn.c_attn"),
            ("attention.out", "attn.c_proj"),
            ("feedforward.up", "mlp.c_fc"),
            ("feedforward.down", "mlp.c_proj"),
        ):
            matrix = (f"h.{i}.{theirs}.weight",)
            yield Part(ours=f"blocks.{i}.{ours}.weight", theirs=matrix, turned=True)
            yield Part(ours=f"blocks.{i}.{ours}.bias", theirs=(f"h.{i}.{theirs}.bias",))
        for ours, theirs in (("norm_attention", "ln_1"), ("norm_feedforward", "ln_2")):
            for end in ("weight", "bias"):
                yield Part(ours=f"blocks.{i}.{ours}.{end}", theirs=(f"h.{i}.{theirs}.{end}",))
    yield Part(ours="norm.weight", theirs=("ln_f.weight",))
    yield Part(ours="norm.bias", theirs=("ln_f.bias",))
    yield Part(ours="head.weight", theirs=("wte.weight" if tied else "lm_head.weight",))


def _llama(settings: Tree, *, tied: bool) -> Tree:
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    for name, found, expected in (
        ("hidden_act", settings.get("hidden_act", "silu"), "silu"),
        ("attention_bias", settings.get("attention_bias", False), False),
        ("mlp_bias", settings.get("mlp_bias", False), False),
        ("head_dim", settings.get("head_dim") or width // heads, width // heads),
        ("rope_type", rope.get("rope_type", rope.get("type", "default")), "default"),
    ):
        if found != expected:
            raise MoreishError(f"{name}={found} is not known here, {expected} is")
    return {
        "name": "gpt",
        "layers": settings["num_hidden_layers"],
        "heads": heads,
        "kv_heads": settings.get("num_key_value_heads") or heads,
        "width": width,
        "context": settings["max_position_embeddings"],
        "tied": tied,
        "bias": False,
        "positions": "rotary",
        "rotary_base": rope.get("rope_theta") or settings.get("rope_theta") or ROTARY_BASE,
        "norm": "rms",
        "norm_eps": settings.get("rms_norm_eps", 1e-6),
        "feedforward": "swiglu",
        "feedforward_width": settings["intermediate_size"],
    }


def llama_parts(layers: int, *, tied: bool) -> Iterator[Part]:
    """What the tensors of a Llama are made of, likewise."""
    yield Part(ours="embedding.weight", theirs=("embed_tokens.weight",))
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
            yield Part(ours=f"blocks.{i}.{ours}.weight", theirs=names)
    yield Part(ours="norm.weight", theirs=("norm.weight",))
    yield Part(ours="head.weight", theirs=("embed_tokens.weight" if tied else "lm_head.weight",))


class _Folder:
    """The tensors of all files, by their names without what they begin with."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        """`opened` closes the files. Raises MoreishError when there are none, or damaged ones."""
        self.path = path
        self._files: dict[str, tuple[Any, str]] = {}
        names = ["model.safetensors"]
        if (path / INDEX).is_file():
            index = _json(path, INDEX).get("weight_map")
            if not isinstance(index, dict) or not all(map(_is_plain, index.values())):
                raise MoreishError(f"{path / INDEX} is damaged: it names no files")
            names = sorted(set(index.values()))
        for name in names:
            if not (path / name).is_file():
                raise MoreishError(f"{path} holds no {name}: only safetensors are read")
            try:
                file = opened.enter_context(safetensors.safe_open(path / name, framework="pt"))
                for key in file.keys():  # noqa: SIM118 (it is no dictionary)
                    bare = key.removeprefix("transformer.").removeprefix("model.")
                    self._files[bare] = file, key
            except (OSError, safetensors.SafetensorError) as error:
                raise MoreishError(f"{path / name} is damaged: {error}") from None

    def check(self, parts: list[Part], model: Model) -> None:
        """Raises MoreishError when tensors are missing, left over, or of another shape."""
        wanted = {name for part in parts for name in part.theirs} | {"lm_head.weight"}
        there = {name for name in self._files if not name.endswith(IGNORED)}
        if surplus := sorted(there - wanted):
            raise MoreishError(f"{self.path} has tensors that are not known here: {surplus[0]}")
        state = model.state_dict()
        assert set(state) == {part.ours for part in parts}
        for part in parts:
            shapes = [self._shape(name) for name in part.theirs]
            if part.turned:
                shapes = [shape[::-1] for shape in shapes]
            found, expected = [sum(s[0] for s in shapes), *shapes[0][1:]], state[part.ours].shape
            rows = found[0] >= expected[0] if part.ours in ROWS else found[0] == expected[0]
            if found[1:] != list(expected[1:]) or not rows:
                raise MoreishError(
                    f"{self.path} is damaged: {part.theirs[0]} is {tuple(found)}, not "
                    f"{tuple(expected)}"
                )

    def _shape(self, name: str) -> list[int]:
        if name not in self._files:
            raise MoreishError(f"{self.path} is damaged: {name} is missing")
        file, key = self._files[name]
        shape: list[int] = file.get_slice(key).get_shape()
        return shape or [0]

    @torch.no_grad()
    def fill(self, parts: list[Part], model: Model) -> None:
        """Put the tensors into `model`, one after another."""
        state = model.state_dict()
        for part in parts:
            read = [
                file.get_tensor(key) for file, key in (self._files[name] for name in part.theirs)
            ]
            found = torch.cat([tensor.mT if part.turned else tensor for tensor in read])
            place = state[part.ours]
            place.copy_(found[: len(place)])


def _tokenizer(path: Path) -> Tokenizer:
    """Raises MoreishError when there is none that is byte-level."""
    if not (path / "tokenizer.json").is_file():
        raise MoreishError(f"{path} holds no tokenizer.json, which Moreish needs")
    data = _json(path, "tokenizer.json")
    try:
        return tokenizer_from_json(data, boundary=bool(data.get("added_tokens")))
    except MoreishError as error:
        raise MoreishError(f"{path / 'tokenizer.json'}: {error}") from None


def _no_data(path: Path, tokenizer: Tokenizer) -> DatasetInfo:
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
        notes=["the model was trained elsewhere, on data that are not here", content_of(path)],
    )


def _json(path: Path, name: str) -> Tree:
    try:
        found = read_json(path / name)
    except FileNotFoundError:
        raise MoreishError(f"{path} holds no {name}: is it a model's folder?") from None
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise MoreishError(f"{path / name} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise MoreishError(f"{path / name} is damaged: it is no group of settings")
    return found


def _is_plain(name: Any) -> bool:
    """Whether it is the name of a file in the folder itself."""
    return isinstance(name, str) and Path(name).name == name and name not in ("", ".", "..")
