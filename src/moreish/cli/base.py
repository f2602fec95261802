"""What the verbs share: the app, common options, and JSON on standard output."""

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from moreish.errors import MoreishError


class Stopped(Exception):  # noqa: N818 (it is no error)
    """Ctrl-C, or a reader that has gone; typer ends a command for either without a word."""


class Verbs(TyperGroup):
    """Passes both on, so that `moreish.cli.main` says what is to be said."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as cause:
            raise Stopped from cause


app = typer.Typer(
    cls=Verbs,
    name="moreish",
    help="Give it a text; it gives you a language model of that text, trained here and now.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="moreish VERB --help explains a verb. Start with: moreish train",
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Dedup = Annotated[
    bool, typer.Option("--dedup", help="Leave out copies of items, or of long lines of text.")
]
Nfc = Annotated[bool, typer.Option("--nfc", help="Write accented letters as one character each.")]
Clean = Annotated[bool, typer.Option("--clean", help="Leave out control and invisible characters.")]
MinCount = Annotated[
    int | None, typer.Option(metavar="N", help="Leave out characters rarer than N times.")
]
Tokenizer = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="char, byte, word, bpe, gpt2 or a tokenizer.json (char)."),
]
VocabSize = Annotated[
    int | None, typer.Option(metavar="N", help="The most tokens that word or bpe learns.")
]
Weight = Annotated[
    list[str] | None,
    typer.Option(
        "--weight", metavar="NAME=SHARE", help="Of prepared text: a source's share of the training."
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/names-gpt.")]


def shares(given: list[str] | None) -> dict[str, float] | None:
    """What several `--weight NAME=SHARE` say. Raises MoreishError when one is written otherwise."""
    found: dict[str, float] = {}
    for one in given or ():
        name, _, share = one.rpartition("=")
        try:
            number = float(share)
        except ValueError:
            number = math.nan
        if not name or not number >= 0 or name in found:
            raise MoreishError(f"--weight {one}: write each once, as NAME=SHARE, e.g. stories=0.7")
        found[name] = number
    return found or None


def print_json(data: dict[str, Any]) -> None:
    """One object on standard output."""
    everything = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(data, ensure_ascii=not everything, allow_nan=False) + "\n")


def finite(value: float) -> float | None:
    """JSON has no infinity and no NaN: they become null."""
    return value if math.isfinite(value) else None
