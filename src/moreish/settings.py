"""Strict, immutable settings: parsing, merging, TOML, and names of earlier versions."""

import json
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from moreish.errors import MoreishError, nearest, one_line
from moreish.utils.text import shorten

Tree = dict[str, Any]

MAX_DEPTH = 20
"""Levels of nested settings that are read from a recipe or the command line; there are four."""

MAX_INTEGER_BITS = 1024
"""Largest size of an integer in them, which is also that of the largest float."""

RENAMED = {
    "train.recompute": "train.activation_checkpointing",
    "model.grams": "model.ngram_embedding",
    "model.gram_rows": "model.ngram_embedding_rows",
    "model.gram_dropout": "model.ngram_embedding_dropout",
}
"""Deprecated names of settings, each with its present name. Names of `model.*` also hold for the
network inside a hybrid or a mixture (`model.network.*`)."""

SYNONYMS = {
    "learning_rate": "lr", "max_lr": "lr", "grad_clip": "clip",
    "block_size": "context", "context_length": "context",
    "n_layer": "layers", "n_head": "heads", "n_embd": "width", "d_model": "width",
    "max_iters": "steps", "max_steps": "steps", "num_epochs": "epochs",
}  # fmt: skip
"""Names of settings in other projects (nanoGPT, PyTorch, Hugging Face), each with ours."""

REMOVED: dict[str, Any] = {"model.scaled": True, "model.projection": True, "model.residual": True}
"""Settings that no longer exist, each with the only value that older runs may have stored: its
former default, which is what Moreish does today."""


REASONS = {
    "int_type": "give an integer",
    "float_type": "give a number",
    "bool_type": "give true or false",
    "string_type": "give a string",
    "finite_number": "give a finite number",
    "greater_than": "give more than {gt}",
    "greater_than_equal": "give {ge} or more",
    "less_than": "give less than {lt}",
    "less_than_equal": "give {le} or less",
    "literal_error": "give {expected}",
}
"""What to say for the types of pydantic's errors."""


class Settings(BaseModel):
    """A group of settings: immutable and strict (no unknown keys, no NaN or infinity, no conversion
    between types)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @classmethod
    def parse_stored(cls, tree: Any, where: str, newest_format: int) -> Self:
        """Validate the content of a JSON file that Moreish wrote.

        Args:
            tree: the parsed file.
            where: its name, for messages.
            newest_format: the newest version of its `format` that is supported.

        Raises:
            MoreishError: the file is damaged, or was written by a newer Moreish.
        """
        stored_format = tree.get("format") if isinstance(tree, dict) else None
        if isinstance(stored_format, int) and stored_format > newest_format:
            raise MoreishError(
                f"{where} was written by a newer Moreish: pip install --upgrade moreish"
            )
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise MoreishError(f"{where} is damaged ({key}: {first['msg']})") from None

    @classmethod
    def parse(cls, values: Mapping[str, Any], group: str) -> Self:
        """Check values and return them as settings.

        Args:
            values: the settings of this group by name; the others keep their defaults.
            group: the name of the group in error messages, such as "train".

        Raises:
            MoreishError: a key is unknown (the nearest is named) or a value does not fit.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            if isinstance(within := first.get("ctx", {}).get("error"), MoreishError):
                raise within from None  # from a group inside this one, with its own name
            # Only the first part of `loc` is a setting; the rest names the members of a union.
            key = ".".join([group, *map(str, first["loc"][:1])])
            if first["type"] == "extra_forbidden":
                name = str(first["loc"][-1])
                hint = nearest(name, cls.model_fields)
                if (ours := SYNONYMS.get(name)) in cls.model_fields:
                    hint = f"did you mean '{group}.{ours}'?"
                elif (model := values.get("name")) and hint.startswith("known"):
                    hint = f"{model} has no such setting ({hint})"
                raise MoreishError(f"unknown setting {key}: {hint}") from None
            reason, wrong = first["msg"].removeprefix("Value error, "), first["input"]
            if plain := REASONS.get(first["type"]):
                reason = plain.format(**first.get("ctx", {}))
            is_string = plain is not None and isinstance(wrong, str)
            shown = repr(wrong) if is_string else wrong
            value = "" if isinstance(wrong, Mapping) else f"={shorten(shown)}"
            raise MoreishError(f"setting {key}{value}: {reason}") from None


def migrate(tree: Mapping[str, Any], path: str = "", *, warn: bool = True) -> Tree:
    """Give settings that were written for an earlier version their present names.

    Args:
        tree: nested settings, e.g. from a recipe or a run.json.
        path: the group that they are in, with a dot at the end; empty for all settings.
        warn: whether to issue a FutureWarning for every deprecated name.

    Raises:
        MoreishError: a setting is given by both names, or was removed and has a value other than
            its former default.

    >>> migrate({"train": {"recompute": True}}, warn=False)
    {'train': {'activation_checkpointing': True}}
    """
    migrated: Tree = {}
    for key, value in tree.items():
        full = f"{path}{key}"
        new = RENAMED.get(full)
        if new is not None:
            key = new.rpartition(".")[2]
            if key in tree:
                raise MoreishError(f"{full} is the old name of {new}: give only {new}")
            if warn:
                message = f"setting {full} is deprecated; use {new}"
                warnings.warn(message, FutureWarning, stacklevel=2)
        elif full in REMOVED:
            if value != REMOVED[full]:
                raise MoreishError(f"setting {full}={value} was removed (see CHANGELOG.md)")
            continue
        if isinstance(value, Mapping):
            inner = "model." if full == "model.network" else f"{full}."
            value = migrate(value, inner, warn=warn)
        migrated[key] = value
    return migrated


def merge(*trees: Mapping[str, Any]) -> Tree:
    """Merge nested dictionaries key by key; later ones win."""
    merged: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else value
    return merged


def expand_names(tree: Mapping[str, Any]) -> Tree:
    """Turn names with dots into nested groups.

    >>> expand_names({"train.lr": 0.1, "train": {"steps": 5}})
    {'train': {'lr': 0.1, 'steps': 5}}
    """
    expanded: Tree = {}
    for name, value in tree.items():
        for key in reversed(str(name).split(".")):
            value = {key: value}
        expanded = merge(expanded, value)
    return expanded


def from_assignments(assignments: Iterable[str]) -> Tree:
    """Read `--set a.b=value` flags as nested settings; a value that is not TOML is plain text.

    >>> from_assignments(["train.lr=0.1", "model.name=mlp"])
    {'train': {'lr': 0.1}, 'model': {'name': 'mlp'}}
    """
    tree: Tree = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys) or len(keys) > MAX_DEPTH:
            assignment = shorten(assignment)
            raise MoreishError(f"--set {assignment}: write it as name=value, e.g. train.lr=0.001")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):  # also an integer of too many digits
            value = text.strip()
            if value.startswith("{"):
                raise MoreishError(
                    f"--set {path.strip()}: the value is not a TOML table; set every setting by "
                    "itself, e.g. --set model.layers=2 --set model.width=64"
                ) from None
        branch: Any = value
        for key in reversed(keys):
            branch = {key: branch}
        tree = merge(tree, branch)
    check_sizes(tree, "--set")
    return tree


def check_sizes(tree: Tree, where: str) -> None:
    """Check what would fail before any setting is validated.

    Args:
        tree: nested settings.
        where: what they come from, for messages.

    Raises:
        MoreishError: groups are nested without end, or an integer is too large to be printed.
    """
    groups: list[tuple[Any, int]] = [(tree, 1)]
    while groups:
        value, depth = groups.pop()
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise MoreishError(f"{where}: an integer has too many digits; use a smaller one")
        if isinstance(value, Mapping | list):
            if depth > MAX_DEPTH:
                raise MoreishError(f"{where}: settings have at most {MAX_DEPTH} levels; use fewer")
            values = value.values() if isinstance(value, Mapping) else value
            groups += [(each, depth + 1) for each in values]


def to_toml(tree: Tree) -> str:
    """Format nested settings as a TOML recipe: values first, then groups; None is left out.

    >>> print(to_toml({"seed": 0, "model": {"name": "mlp"}}))
    seed = 0
    <BLANKLINE>
    [model]
    name = "mlp"
    """
    # Strings, numbers and booleans of JSON are written the same in TOML.
    lines: list[str] = []

    def write(group: Mapping[str, Any], path: tuple[str, ...]) -> None:
        tables = {k: v for k, v in group.items() if isinstance(v, Mapping)}
        values = {k: v for k, v in group.items() if v is not None and k not in tables}
        if path and values:
            lines.extend(["", f"[{'.'.join(path)}]"])
        lines.extend(f"{key} = {json.dumps(value)}" for key, value in values.items())
        for key, table in tables.items():
            write(table, (*path, key))

    write(tree, ())
    return "\n".join(lines).strip()


def from_toml(path: Path) -> Tree:
    """Read a recipe. Raises MoreishError when it does not exist or is not TOML."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MoreishError(f"no such recipe: {path}") from None
    except (ValueError, RecursionError) as error:  # also an integer of too many digits
        raise MoreishError(f"{path} is not a valid TOML recipe: {one_line(error)}") from None
    check_sizes(tree, str(path))
    return tree
