"""Imports GPT-2 and Llama models in the format of Hugging Face transformers.

A model folder holds config.json, tokenizer.json and the weights as safetensors, in one file or in
several files with an index.
"""

import hashlib
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import safetensors
import torch

from moreish.config import resolve
from moreish.convert.hf_architectures import ACTIVATIONS, ARCHITECTURES, TensorMap
from moreish.errors import MoreishError, one_line
from moreish.models import ROTARY_BASE, Model, build_model
from moreish.runs import DatasetInfo, Run, backup_path, check_run_path, remove_run, restore_run
from moreish.settings import Tree
from moreish.tokenizers import Tokenizer, tokenizer_from_json
from moreish.utils.files import file_sha256, read_json, user_path

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

INDEX = "model.safetensors.index.json"

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


def import_hf(path: Path, out: Path, *, overwrite: bool = False) -> Run:
    """Create a run with the model and tokenizer of a transformers folder, and without data.

    Raises:
        MoreishError: the folder is damaged or holds another architecture, or `out` exists.
    """
    check_run_path(out, overwrite=overwrite)
    model_settings, architecture = _read_config(path)
    source = path.resolve()
    data = {"source": str(source), "kind": "text", "tokenizer": str(source / "tokenizer.json")}
    config = resolve({"data": data, "model": model_settings})
    tokenizer = _load_tokenizer(path)
    tensor_maps = ARCHITECTURES[architecture].tensor_maps(
        model_settings["layers"], tied=model_settings["tied"]
    )
    with ExitStack() as stack:
        weights = _ShardedWeights(path, stack)
        with torch.device("meta"):  # checks the shapes before any memory is allocated
            weights.check(tensor_maps, build_model(config.model, tokenizer.vocab_size))
        model = build_model(config.model, tokenizer.vocab_size)
        weights.copy_into(model, tensor_maps)
    facts = DatasetInfo(
        name=source.name,
        kind="text",
        vocabulary=tokenizer.vocab_size,
        boundary=tokenizer.boundary_id is not None,
        notes=[
            "the model is imported; its training data is not available",
            checkpoint_digest(path),
        ],
    )
    if overwrite:
        restore_run(out)
    run = Run.create(out, config, tokenizer, {}, facts, overwrite=overwrite)
    run.save_weights(model)
    run.update(status="finished", parameters=model.num_parameters())
    remove_run(backup_path(out))
    return Run.open(out)


def checkpoint_digest(path: Path) -> str:
    """Return a note that identifies the weights, config and tokenizer of a folder."""
    digest = hashlib.sha256()
    for file in sorted([*path.glob("*.json"), *path.glob("*.safetensors")]):
        digest.update(bytes.fromhex(file_sha256(file)))
    return f"sha256 of its files: {digest.hexdigest()}"


def load_model_settings(path: Path) -> Tree:
    """Return the `model` settings of a transformers folder.

    Raises:
        MoreishError: config.json is missing or damaged, or describes another architecture.
    """
    return _read_config(path)[0]


def gpt2_settings(name: str) -> Tree | None:
    """Return the `model` settings of a published GPT-2 without downloading it; None if `name`
    is not one."""
    if (size := GPT2_SIZES.get(name.removeprefix("openai-community/"))) is None:
        return None
    config = dict(zip(("n_layer", "n_head", "n_embd"), size, strict=True))
    return _model_settings("gpt2", {**config, "n_positions": 1024})


def resolve_model_folder(source: str) -> Path:
    """Return the folder `source`; if there is none, downloads the model of that name from the Hub.

    Raises:
        MoreishError: there is no such folder or model, or the Hub cannot be reached.
    """
    if not source:
        raise MoreishError("name a model: a folder, or its name on the Hub (hf:NAME)")
    path = user_path(source)
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
        raise MoreishError(
            f"{source} cannot be downloaded ({one_line(error)}): download it on another machine "
            "and name its folder"
        ) from None


def _read_config(path: Path) -> tuple[Tree, str]:
    """Return the `model` settings and the architecture."""
    config = _read_object(path, "config.json")
    architecture = config.get("model_type")
    if architecture not in ("gpt2", "llama"):
        raise MoreishError(
            f"{path} holds a model of type {architecture!r}: only gpt2 and llama can be imported"
        )
    try:
        return _model_settings(architecture, config), architecture
    except MoreishError:  # is a ValueError too
        raise
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise MoreishError(f"{path / 'config.json'} is damaged: {error!r}") from None


def _model_settings(name: str, config: Tree) -> Tree:
    architecture = ARCHITECTURES[name]
    fixed = dict(architecture.fixed_settings)
    tied = bool(config.get("tie_word_embeddings", architecture.tied_by_default))
    settings: Tree = {"name": "gpt", "tied": tied}
    if name == "gpt2":
        config = {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", **config}
        config["n_inner"] = config.get("n_inner") or 4 * config["n_embd"]
        activation = config["activation_function"]
        if activation not in ACTIVATIONS:
            raise MoreishError(
                f"activation_function={activation} is not supported, only {', '.join(ACTIVATIONS)}"
            )
        settings["feedforward"] = ACTIVATIONS[activation]
    else:
        heads = config["num_attention_heads"]
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        fixed["head_dim"] = config["hidden_size"] // heads
        fixed["rope_type"] = "default"
        config = {"rms_norm_eps": 1e-6, **config}
        config["num_key_value_heads"] = config.get("num_key_value_heads") or heads
        config["head_dim"] = config.get("head_dim") or fixed["head_dim"]
        config["rope_type"] = rope.get("rope_type", rope.get("type", "default"))
        settings |= {
            "bias": False,
            "positions": "rotary",
            "rotary_base": rope.get("rope_theta") or config.get("rope_theta") or ROTARY_BASE,
            "norm": "rms",
            "feedforward": "swiglu",
        }
    for key, supported in fixed.items():
        if (value := config.get(key, supported)) != supported:
            raise MoreishError(f"{key}={value} is not supported, only {supported}")
    return settings | {ours: config[theirs] for ours, theirs in architecture.settings.items()}


class _ShardedWeights:
    """The tensors of one or several safetensors files, by name without the common prefix."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        """Open the files, which `stack` closes. Raises MoreishError if one cannot be read."""
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
        """Raise MoreishError if a tensor is missing, unknown, or has another shape."""
        known = {name for each in tensor_maps for name in each.theirs} | {"lm_head.weight"}
        for name in sorted(self._tensors.keys() - known):
            if not name.endswith(BUFFERS):
                raise MoreishError(f"{self.path} has an unknown tensor: {name}")
        state = model.state_dict()
        assert set(state) == {each.ours for each in tensor_maps}
        for each in tensor_maps:
            shapes = []
            for name in each.theirs:
                if name not in self._tensors:
                    raise MoreishError(f"{self.path} is damaged: {name} is missing")
                file, key = self._tensors[name]
                shape = file.get_slice(key).get_shape() or [0]
                shapes.append(shape[::-1] if each.transposed else shape)
            actual = (sum(shape[0] for shape in shapes), *shapes[0][1:])
            expected = tuple(state[each.ours].shape)
            extra = actual[0] - expected[0]
            fits = extra == 0 or (extra > 0 and each.ours in VOCABULARY_TENSORS)
            if actual[1:] != expected[1:] or not fits:
                raise MoreishError(
                    f"{self.path} is damaged: the shape of {each.theirs[0]} is {actual}, not "
                    f"{expected}"
                )

    @torch.no_grad()
    def copy_into(self, model: Model, tensor_maps: list[TensorMap]) -> None:
        """Copy the tensors into `model`, one after another to save memory."""
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


def _read_object(path: Path, name: str) -> Tree:
    """Read a JSON file that must hold an object."""
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
    """Return whether `name` is a file in the folder itself, and not a path to another."""
    return isinstance(name, str) and Path(name).name == name and name not in ("", ".", "..")
