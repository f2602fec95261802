"""`moreish sample`."""

import shutil
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from moreish.cli.base import (
    Json,
    RunPath,
    app,
    print_json,
    read_standard_input,
    unescape,
    working,
)
from moreish.errors import MoreishError, visible
from moreish.utils.text import WordWrapper

if TYPE_CHECKING:
    from moreish.runs import Run

SAMPLING = "Sampling"
CONDITIONS = "Conditions on the texts"


@app.command()
def sample(
    path: RunPath,
    prompt: Annotated[str, Option(help="Start of every text; - reads standard input.")] = "",
    n: Annotated[
        int | None, Option("-n", help="Number of texts (default: 10 items, or 1 running text).")
    ] = None,
    max_tokens: Annotated[
        int | None, Option(help="Maximum number of tokens per text (default: set by the data).")
    ] = None,
    stop: Annotated[
        list[str] | None,
        Option(metavar="TEXT", help="End the text before this string; may be repeated."),
    ] = None,
    best_of: Annotated[
        int, Option(help="Sample N times as many texts; show the most likely, with scores.")
    ] = 1,
    unknown: Annotated[
        str, Option(help="What to do with unknown characters of the prompt: error or drop.")
    ] = "error",
    remember: Annotated[
        str,
        Option(
            metavar="TEXT|FILE",
            help="Text that the model has just read, a file of it, or - for standard input.",
        ),
    ] = "",
    as_json: Json = False,
    temperature: Annotated[
        float,
        Option(
            help="Sampling temperature; 0 always takes the most likely token.",
            rich_help_panel=SAMPLING,
        ),
    ] = 1.0,
    top_k: Annotated[
        int | None,
        Option(help="Sample from the k most likely tokens only.", rich_help_panel=SAMPLING),
    ] = None,
    top_p: Annotated[
        float | None,
        Option(
            help="Sample from the most likely tokens whose probabilities add up to p.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        Option(
            help="Sample from tokens at least p times as likely as the most likely one.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    repetition_penalty: Annotated[
        float,
        Option(
            help="Above 1, tokens that occurred before are less likely.", rich_help_panel=SAMPLING
        ),
    ] = 1.0,
    seed: Annotated[
        int,
        Option(help="Random seed; the same seed gives the same texts.", rich_help_panel=SAMPLING),
    ] = 0,
    new_only: Annotated[
        bool,
        Option(
            "--new-only", help="Leave out texts that are in the data.", rich_help_panel=CONDITIONS
        ),
    ] = False,
    unique: Annotated[
        bool, Option("--unique", help="Leave out duplicate texts.", rich_help_panel=CONDITIONS)
    ] = False,
    starts: Annotated[
        str | None,
        Option(help="Start of every item; the same as --prompt.", rich_help_panel=CONDITIONS),
    ] = None,
    ends: Annotated[
        str | None, Option(help="End of every item.", rich_help_panel=CONDITIONS)
    ] = None,
    contains: Annotated[
        str | None, Option(help="Text that every item contains.", rich_help_panel=CONDITIONS)
    ] = None,
    regex: Annotated[
        str | None,
        Option(
            help="Regular expression that every item matches as a whole.",
            rich_help_panel=CONDITIONS,
        ),
    ] = None,
    length: Annotated[
        str | None,
        Option(
            metavar="A..B",
            help="Length of every item in characters, e.g. 5, 3..7, 3..",
            rich_help_panel=CONDITIONS,
        ),
    ] = None,
    max_overlap: Annotated[
        int | None,
        Option(
            help="Maximum number of consecutive characters copied from the training data.",
            rich_help_panel=CONDITIONS,
        ),
    ] = None,
    rank: Annotated[
        str | None,
        Option(help="Sort the texts by likelihood or by novelty.", rich_help_panel=CONDITIONS),
    ] = None,
) -> None:
    """Generate new items of a list, or running text."""
    # Not from `moreish.api`: importing what trains takes longer than opening a run.
    from moreish.generate import TooFewTexts
    from moreish.runs import Run

    run = Run.open(path)
    shown: Callable[[str], str] = visible if sys.stdout.isatty() else str
    if starts is not None and prompt:
        raise MoreishError("--starts and --prompt mean the same: give only one")
    if prompt == "-":
        prompt = read_standard_input().removesuffix("\n")
    options: dict[str, Any] = {
        "prompt": starts or prompt,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "stop": [unescape(text) for text in stop or ()],
        "seed": seed,
        "unknown": unknown,
        "remember": _read_if_file(remember),
    }
    filters: dict[str, Any] = {
        "new_only": new_only,
        "unique": unique,
        "ends": ends,
        "contains": contains,
        "regex": regex,
        "length": length,
        "max_overlap": max_overlap,
        "rank": rank,
    }
    if n is None:
        n = 10 if run.kind == "lines" else 1
    is_filtered = any(value is not None and value is not False for value in filters.values())
    if run.kind == "text" and n == 1 and best_of == 1 and not is_filtered and not as_json:
        pieces: Iterable[str] = map(shown, run.stream(**options))
        if sys.stdout.isatty():
            pieces = WordWrapper(shutil.get_terminal_size().columns).pieces(pieces)
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    problem = ""
    texts: list[str]
    try:
        with working("Sampling"):
            texts = run.sample(n, best_of=best_of, **filters, **options)
    except TooFewTexts as error:
        if not error.texts:
            raise
        texts, problem = error.texts, str(error)
    scores = [run.mean_surprisal(text) for text in texts] if best_of > 1 else []
    if as_json:
        print_json(run=run.path, samples=texts, **({"scores": scores} if scores else {}))
    else:
        _print_texts(run, texts, scores)
    if problem:
        typer.echo(f"moreish: {problem}", err=True)


def _read_if_file(text: str) -> str:
    """Return the content of the file that `text` names, standard input for -, or `text` itself.

    Raises:
        MoreishError: it looks like the name of a file, but there is none.
    """
    if text == "-":
        return read_standard_input()
    from moreish.data import decode_chunks, normalize_newlines
    from moreish.utils.files import user_path

    path = user_path(text)
    try:
        exists = bool(text) and path.exists()
    except (OSError, ValueError):  # too long for a name
        exists = False
    if exists and not path.is_file():
        raise MoreishError(f"--remember {text}: this is not a file")
    if exists:
        with path.open("rb") as file:
            return "".join(normalize_newlines(decode_chunks(file, "utf-8", str(path))))
    if path.suffix and not any(map(str.isspace, text)):
        raise MoreishError(f"--remember {text}: there is no such file")
    return text


def _print_texts(run: "Run", texts: list[str], scores: list[float]) -> None:
    """Print texts, each after its mean surprisal in nats per token if there are scores."""
    shown: Callable[[str], str] = visible if sys.stdout.isatty() else str
    if scores:
        texts = [f"{score:.3f}  {text}" for score, text in zip(scores, texts, strict=True)]
    if run.kind == "lines":  # one per line, even where a byte-level model writes line breaks
        written = "".join(text.replace("\n", "↵") + "\n" for text in texts)
    else:
        written = "\n\n---\n\n".join(texts) + "\n"
        if sys.stdout.isatty():
            wrapper = WordWrapper(shutil.get_terminal_size().columns)
            written = "".join(wrapper.pieces([written]))
    sys.stdout.write(shown(written))
