"""The options of `train` and of the commands that share them, declared once.

The flags of the command line, the keyword arguments of the Python functions with their
documentation, and the first table of docs/settings.md are generated from the classes below. This
module imports nothing heavy, so that `moreish --help` answers at once.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar, get_args, get_type_hints

from moreish.errors import MoreishError, nearest

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Option:
    """What an option means, and where its value goes."""

    help: str
    """One full sentence, with the default in parentheses."""
    setting: str
    """The setting that it is short for, such as "train.minutes"."""
    flag: str | None = None
    """Its spelling on the command line, where that is not `--` and its name."""
    metavar: str | None = None


class TextOptions(TypedDict, total=False):
    """Reading and cleaning the text"""

    kind: Annotated[
        Literal["lines", "text", "examples"] | None,
        Option(
            "Read the source as lines (each line is an item), as running text, or as examples "
            "(default: guess).",
            "data.kind",
            flag="--as",
            metavar="lines|text|examples",
        ),
    ]
    input: Annotated[
        str | int | None,
        Option(
            "Column of a table that holds the inputs of examples.", "data.input", metavar="NAME"
        ),
    ]
    target: Annotated[
        str | int | None,
        Option("Column that holds their targets: text or labels.", "data.target", metavar="NAME"),
    ]
    encoding: Annotated[
        str | None, Option("Character encoding of the source (default utf-8).", "data.encoding")
    ]
    column: Annotated[
        str | int | None,
        Option(
            "Column of a table to learn: CSV, TSV, JSON, JSON lines or Parquet (default: text).",
            "data.column",
            metavar="NAME",
        ),
    ]
    separator: Annotated[
        str | None,
        Option(
            "Text between the documents of a file, e.g. '\\n---\\n' (default: <|endoftext|>).",
            "data.separator",
            metavar="TEXT",
        ),
    ]
    dedup: Annotated[
        bool | None,
        Option("Remove duplicate items, or duplicate long lines of running text.", "data.dedup"),
    ]
    nfc: Annotated[
        bool | None,
        Option("Normalize to Unicode NFC (one code point per accented letter).", "data.nfc"),
    ]
    clean: Annotated[
        bool | None, Option("Remove control characters and invisible characters.", "data.clean")
    ]
    min_count: Annotated[
        int | None,
        Option("Remove characters that occur fewer than N times.", "data.min_count", metavar="N"),
    ]


class ModelOptions(TextOptions, total=False):
    """Split, tokenizer and model"""

    split: Annotated[
        Literal["seeded", "lecture"] | None,
        Option(
            "Split into training, validation and test at random, or as in the lectures "
            "(default seeded).",
            "data.split",
            metavar="seeded|lecture",
        ),
    ]
    validation_file: Annotated[
        str | None,
        Option(
            "Validation split from its own file; the source is then all training split.",
            "data.validation_file",
            metavar="FILE",
        ),
    ]
    test_file: Annotated[
        str | None,
        Option(
            "Test split from a file of its own, with --validation-file.",
            "data.test_file",
            metavar="FILE",
        ),
    ]
    model: Annotated[
        str | None,
        Option(
            "Model to train: ngram, kneser-ney, bigram, mlp, gpt, hybrid, … (default auto: the "
            "planner chooses).",
            "model.name",
            metavar="NAME",
        ),
    ]
    context: Annotated[
        int | None, Option("Context length in tokens (default: set by the model).", "model.context")
    ]
    tokenizer: Annotated[
        str | None,
        Option(
            "Tokenizer: char, byte, word, bpe, gpt2, or a tokenizer.json file (default char).",
            "data.tokenizer",
            metavar="NAME",
        ),
    ]
    vocab_size: Annotated[
        int | None,
        Option(
            "Maximum vocabulary size of the word or bpe tokenizer (default: set by the "
            "size of the text).",
            "data.vocab_size",
            metavar="N",
        ),
    ]


class TrainOptions(ModelOptions, total=False):
    """Training"""

    lr: Annotated[
        float | str | None,
        Option(
            "Learning rate, or auto for a range test (default: set by the model).",
            "train.lr",
            metavar="RATE",
        ),
    ]
    batch_size: Annotated[
        int | str | None,
        Option(
            "Items, or windows of running text, per step (default: set by the model).",
            "train.batch_size",
            metavar="N",
        ),
    ]
    device: Annotated[
        str | None,
        Option("PyTorch device: cpu, cuda, mps, … (default auto).", "train.device"),
    ]

    minutes: Annotated[
        float | None, Option("Train for this many minutes (default 1).", "train.minutes")
    ]
    steps: Annotated[
        int | None, Option("Train for this many optimizer steps instead.", "train.steps")
    ]
    epochs: Annotated[
        float | None,
        Option("Train for this many passes over the training split instead.", "train.epochs"),
    ]
    seed: Annotated[int | None, Option("Random seed for weights and batches (default 0).", "seed")]
    weights: Annotated[
        Mapping[str, float] | None,
        Option(
            "Share of a source in the training batches, for a folder made by moreish prepare; "
            "may be repeated.",
            "data.weights",
            flag="--weight",
            metavar="NAME=SHARE",
        ),
    ]
    init_from: Annotated[
        str | Path | None,
        Option(
            "Start from the weights of another run, or of a Hugging Face model (hf:FOLDER).",
            "init_from",
            metavar="RUN",
        ),
    ]


GROUPS = (TextOptions, ModelOptions, TrainOptions)

_HINTS = get_type_hints(TrainOptions, include_extras=True)

TYPES: dict[str, Any] = {name: get_args(hint)[0] for name, hint in _HINTS.items()}
"""The Python type of every option, by name."""

OPTIONS: dict[str, Option] = {name: get_args(hint)[1] for name, hint in _HINTS.items()}
"""Every option by name, those of `TextOptions` first."""


def settings_tree(options: Mapping[str, Any]) -> dict[str, Any]:
    """Put the values of options into the tree of settings; None is left out.

    >>> settings_tree({"model": "mlp", "steps": 5, "seed": None})
    {'model': {'name': 'mlp'}, 'train': {'steps': 5}}
    """
    tree: dict[str, Any] = {}
    for name, value in options.items():
        if name not in OPTIONS:
            raise TypeError(f"unexpected keyword argument '{name}': {nearest(name, OPTIONS)}")
        if value is not None:
            group, _, key = OPTIONS[name].setting.rpartition(".")
            target = tree.setdefault(group, {}) if group else tree
            target[key] = str(value) if isinstance(value, Path) else value
    return tree


def command_words(options: Mapping[str, Any]) -> list[str]:
    """The words of a command line that give these options.

    >>> command_words({"kind": "text", "dedup": True, "clean": False, "weights": {"a": 0.5}})
    ['--as', 'text', '--dedup', '--weight', 'a=0.5']
    """
    words: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        parts = [f"{k}={v}" for k, v in value.items()] if isinstance(value, Mapping) else [value]
        for part in parts:
            words += [flag(name)] if part is True else [flag(name), str(part)]
    return words


def flag(name: str) -> str:
    """How an option is spelled on the command line."""
    return OPTIONS[name].flag or f"--{name.replace('_', '-')}"


def panel(name: str) -> str:
    """The title of the group that an option belongs to."""
    return str(_group(name).__doc__)


def _group(name: str) -> type:
    return next(group for group in GROUPS if name in group.__annotations__)


def names_of(group: type) -> list[str]:
    """The options of a group and of those that it builds on, its own first."""
    return sorted(group.__annotations__, key=lambda name: -GROUPS.index(_group(name)))


def parse_weights(flags: Iterable[str]) -> dict[str, float]:
    """Parse the values of several `--weight NAME=SHARE`. Raises MoreishError when one is
    malformed."""
    found: dict[str, float] = {}
    for text in flags:
        name, _, share = text.rpartition("=")
        try:
            number = float(share)
        except ValueError:
            number = math.nan
        if not name or not number >= 0 or name in found:
            raise MoreishError(
                f"--weight {text}: write NAME=SHARE, e.g. stories=0.7, once per source"
            )
        found[name] = number
    return found


def takes_options(group: type) -> Callable[[F], F]:
    """Decorate a function that ends in `**options: Unpack[group]`: `help` shows every option of
    `group` as a keyword argument, with its description."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = names_of(group)
        keywords = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=TYPES[name]
            )
            for name in names
        ]
        function.__signature__ = signature.replace(parameters=[*own, *keywords])  # type: ignore[attr-defined]
        lines = "\n".join(f"        {name}: {OPTIONS[name].help}" for name in names)
        function.__doc__ = f"{function.__doc__}\n    Options:\n{lines}\n"
        return function

    return decorate
