"""Reads examples from tables and JSON lines, in the formats of Hugging Face's TRL and of others."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from moreish.data.catalog import CATALOG, load_dataset
from moreish.data.examples.corpus import ExampleCorpus
from moreish.data.text import is_table, open_decoded, parse_json, sniff_table, uncompressed_name
from moreish.errors import MoreishError
from moreish.tasks import Example
from moreish.tokenizers import SURROGATE, TargetForm
from moreish.utils.files import user_path
from moreish.utils.text import plural

PAIRS = (
    ("prompt", "completion"),
    ("text", "label"),
    ("input", "target"),
    ("input", "output"),
    ("question", "answer"),
    ("source", "target"),
)
"""Names of columns that hold inputs and targets, those of TRL and of text classification first."""

MESSAGES = "messages"
"""The field that holds a conversation, whose last message is the target."""

PEEK_LINES = 20
"""Lines at the beginning of a file by which it is recognized."""

MAX_PEEK_CHARACTERS = 1 << 24
"""Characters in which there should be a whole line."""

MAX_FIELD_CHARACTERS = 1 << 30
"""Longest field of a CSV file."""


@dataclass(frozen=True, kw_only=True)
class ExampleFormat:
    """How to read examples."""

    encoding: str = "utf-8"
    input: str | None = None
    """Name or number of the column of inputs; None recognizes it."""
    target: str | None = None
    """The same for targets."""
    target_form: TargetForm | None = None
    """What the targets are; None guesses."""


@dataclass(frozen=True)
class _Table:
    names: list[str]
    """Names of the columns; empty where they only have numbers."""
    rows: list[dict[str, Any]]
    """The fields of each row, by name and, in CSV, also by number."""


def looks_like_examples(source: str) -> bool:
    """Return whether a file has examples by the names of its fields: a prompt and its completion,
    messages, or a text and its label."""
    if source in CATALOG:
        return CATALOG[source].kind == "examples"
    path = user_path(source)
    if not path.is_file() or not is_table(path) or _suffix(path) == ".parquet":
        return False
    try:
        names = _read_table(path, ExampleFormat(), limit=PEEK_LINES).names
    except (MoreishError, OSError):
        return False  # whoever reads it reports what is wrong
    return MESSAGES in names or any({*pair} <= {*names} for pair in PAIRS[:2])


def table_columns(path: Path) -> list[str]:
    """Return the names, or the numbers, of the columns of a table of text; none for other files,
    and for tables of one column."""
    if not is_table(path) or _suffix(path) == ".parquet":
        return []
    try:
        names = _read_table(path, ExampleFormat(), limit=PEEK_LINES).names
    except (MoreishError, OSError):
        return []  # whoever reads it reports what is wrong
    return names if len(names) > 1 else []


def read_examples(sources: Sequence[str], file_format: ExampleFormat) -> ExampleCorpus:
    """Read the examples of one or several files.

    Raises:
        MoreishError: a file does not exist or is damaged, a column cannot be chosen, or no example
            has a target.
    """
    found: list[Example] = []
    notes: list[str] = []
    for source in sources:
        path = user_path(source)
        if source in CATALOG and CATALOG[source].kind == "examples":
            lines = load_dataset(source).split("\n")
            found += [Example(*line.split("\t")) for line in lines]
            continue
        if not path.is_file():
            raise MoreishError(f"no file {path}: examples are read from tables and JSON lines")
        examples, note = _examples_of_file(path, file_format)
        found += examples
        notes += [] if note is None else [note]
    present = [example for example in found if example.target]
    if not present:
        raise MoreishError(f"{', '.join(sources)}: no example has a target")
    if absent := len(found) - len(present):
        notes.append(f"left out {plural(absent, 'example')} without a target")
    more = f"-and-{len(sources) - 1}-more" if len(sources) > 1 else ""
    name = sources[0]
    corpus = ExampleCorpus(
        name=(name if name in CATALOG else Path(uncompressed_name(user_path(name))).stem) + more,
        examples=present,
        notes=notes,
        target_form=file_format.target_form,
    )
    notes.append(_describe_targets(corpus))
    several, ceiling = corpus.ambiguity
    if several and corpus.form == "label":
        notes.append(
            f"{plural(several, 'input')} with more than one label: at most {ceiling:.2%} of the "
            "labels can be right"
        )
    elif several:
        notes.append(
            f"{plural(several, 'input')} with more than one target: a prediction is right if it is "
            "one of them"
        )
    return replace(corpus, notes=notes)


def _describe_targets(corpus: ExampleCorpus) -> str:
    if corpus.form == "text":
        return "the targets are text (if not: --set data.target_form=label or words)"
    if corpus.form == "words":
        return (
            f"the targets are sequences of {len(corpus.symbols)} words (if not: --set "
            "data.target_form=text)"
        )
    shown = ", ".join(corpus.symbols[:6]) + (", …" if len(corpus.symbols) > 6 else "")
    return f"{plural(len(corpus.symbols), 'label')}: {shown}"


def _examples_of_file(path: Path, file_format: ExampleFormat) -> tuple[list[Example], str | None]:
    table = _read_table(path, file_format)
    if MESSAGES in table.names and file_format.input is None and file_format.target is None:
        examples = [
            _example_of_messages(row.get(MESSAGES), f"{path}, example {number:,}")
            for number, row in enumerate(table.rows, 1)
        ]
        return examples, f"the target is the last message of each conversation in {path.name}"
    source, target = _choose_columns(path, table, file_format)
    examples = [
        Example(
            _text_of(row.get(source), f"{path}, example {number:,}, {source!r}"),
            _text_of(row.get(target), f"{path}, example {number:,}, {target!r}"),
        )
        for number, row in enumerate(table.rows, 1)
    ]
    note = None
    if file_format.input is None or file_format.target is None:
        note = (
            f"examples of '{source}' → '{target}' in {path.name} (if not: --input COLUMN --target "
            "COLUMN, or --as lines or text)"
        )
    return examples, note


def _choose_columns(path: Path, table: _Table, file_format: ExampleFormat) -> tuple[str, str]:
    """Return the names of the columns of inputs and targets."""
    known = table.names or list(dict.fromkeys(chain(*table.rows)))
    chosen = [file_format.input, file_format.target]
    for option, name in zip(("--input", "--target"), chosen, strict=True):
        if name is not None and name not in known and not any(name in row for row in table.rows):
            raise MoreishError(
                f"{path}: no column '{name}' ({option}): its columns are {', '.join(known[:12])}"
            )
    if None not in chosen:
        if chosen[0] == chosen[1]:
            raise MoreishError(f"--input and --target are both '{chosen[0]}': name two columns")
        return str(chosen[0]), str(chosen[1])
    for pair in PAIRS:
        if {*pair} <= {*known} and all(c in (None, p) for c, p in zip(chosen, pair, strict=True)):
            return pair
    if len(known) == 2:
        others = [name for name in known if name not in chosen]
        source, target = (name if name is not None else others.pop(0) for name in chosen)
        return source, target
    raise MoreishError(
        f"{path} has the columns {', '.join(known[:12])}: choose two with --input COLUMN and "
        "--target COLUMN"
    )


def _example_of_messages(messages: Any, where: str) -> Example:
    """Return the last message of a conversation as the target of those before it."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise MoreishError(f"{where}: 'messages' is not a list of messages with role and content")
    if not messages or messages[-1].get("role") != "assistant":
        return Example(_text_of(messages, where), "")
    return Example(_text_of(messages[:-1], where), _text_of(messages[-1:], where))


def _text_of(value: Any, where: str) -> str:
    """Return a field as text: numbers as they are written, messages by their content."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        # Messages have content, which may have parts of its own.
        parts = (each.get("content", each.get("text")) for each in value)
        value = "\n".join(_text_of(part, where) for part in parts)
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str):
        raise MoreishError(f"{where}: this is not text but {str(value)[:40]!r}")
    if SURROGATE.search(value):
        raise MoreishError(f"{where}: it has a lone surrogate, which is no character: remove it")
    return value.replace("\r\n", "\n").replace("\r", "\n").strip()


def _suffix(path: Path) -> str:
    return Path(uncompressed_name(path)).suffix.lower()


def _read_table(path: Path, file_format: ExampleFormat, limit: int | None = None) -> _Table:
    suffix = _suffix(path)
    if suffix == ".parquet":
        raise MoreishError(f"{path}: examples are read from CSV, TSV, JSON and JSON lines")
    with open_decoded(path, file_format.encoding) as chunks:
        text = "".join(chunks) if limit is None else _beginning(chunks)
    is_cut = limit is not None
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _table_of_json(path, text, suffix, limit)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if is_cut:
        text = "\n".join(lines[:limit])
    return _table_of_csv(path, text, suffix, file_format)


def _beginning(chunks: Iterable[str]) -> str:
    """Return the whole lines at the beginning of a text."""
    text = ""
    for chunk in chunks:
        text += chunk
        if "\n" in text[: -len(chunk)] or len(text) > MAX_PEEK_CHARACTERS:
            return text[: text.rfind("\n") + 1] or text
    return text


def _first_object(text: str) -> Any:
    """Return the first element of the beginning of a JSON array."""
    start = text.find("{")
    try:
        return json.JSONDecoder().raw_decode(text, max(0, start))[0]
    except (ValueError, RecursionError):
        raise MoreishError("the file does not begin with a list of JSON objects") from None


def _table_of_json(path: Path, text: str, suffix: str, limit: int | None) -> _Table:
    if suffix == ".json" and limit is None:
        rows = parse_json(text, str(path))
    elif suffix == ".json":
        rows = [_first_object(text)]
    else:
        lines = [line for line in text.split("\n") if line.strip()][:limit]
        rows = [parse_json(line, f"{path}, line {n:,}") for n, line in enumerate(lines, 1)]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MoreishError(f"{path} is not a list of JSON objects, or JSON lines of objects")
    counts = Counter(chain(*rows))
    return _Table([name for name in counts if isinstance(name, str)], rows)


def _table_of_csv(path: Path, text: str, suffix: str, file_format: ExampleFormat) -> _Table:
    delimiter, has_header = sniff_table(text[: 1 << 16], ".tsv" if suffix == ".tsv" else ".csv")
    lines = [line for line in text.split("\n") if line.strip()]
    # In a plain table of tabs, a quotation mark is a character like others.
    is_plain = delimiter == "\t" and len({line.count("\t") for line in lines}) == 1
    quoting: Any = csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL
    previous = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        stream = io.StringIO(text, newline="")
        rows = [row for row in csv.reader(stream, delimiter=delimiter, quoting=quoting) if any(row)]
    except csv.Error as error:
        raise MoreishError(f"{path} is damaged: {error}") from None
    finally:
        csv.field_size_limit(previous)
    if not rows:
        raise MoreishError(f"{path} is empty: there are no examples")
    names = [name.strip() for name in rows[0]]
    requested = {file_format.input, file_format.target} - {None}
    known = requested | {name for pair in PAIRS for name in pair}
    has_header = has_header or bool(known & {*names})
    numbers = [str(number) for number in range(1, len(names) + 1)]
    body = rows[1:] if has_header else rows
    keyed = [
        dict(zip(numbers, row, strict=False))
        | (dict(zip(names, row, strict=False)) if has_header else {})
        for row in body
    ]
    return _Table(names if has_header else numbers, keyed)
