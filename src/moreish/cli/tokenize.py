"""`moreish tokenize`."""

from typing import Annotated

import typer
from typer import Argument, Option

from moreish.cli.base import Json, app, print_json, takes_flags


@app.command()
@takes_flags("vocab_size")
def tokenize(
    source: Annotated[
        str,
        Argument(
            metavar="SOURCE", help="A run, a built-in data set, a file, or a folder of text files."
        ),
    ] = "names",
    text: Annotated[
        str | None, Option(help="Show the tokens of this text instead of comparing.")
    ] = None,
    tokenizer: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="Tokenizer to use: char, byte, word, bpe, gpt2, or a tokenizer.json file; may be "
            "repeated (default: all).",
        ),
    ] = None,
    as_json: Json = False,
    *,
    vocab_size: int | None = None,
) -> None:
    """Compare tokenizers on a source, or show the tokens of a text."""
    from moreish import api
    from moreish.tokenizers import REGISTRY
    from moreish.ui import console, token_lines, tokenization_table

    if text is None:
        compared = api.compare_tokenizers(source, tokenizer, vocab_size=vocab_size)
        if as_json:
            print_json(tokenizers=compared)
            return
        console().print(tokenization_table(compared))
        missing = set() if tokenizer else {*REGISTRY} - {each.name for each in compared}
        if missing:
            names = ", ".join(sorted(missing))
            typer.echo(f"\nNot available: {names}. To see why, run with --tokenizer NAME.")
        return
    found = api.tokenize(text, source, tokenizer, vocab_size=vocab_size)
    if as_json:
        print_json(text=text, tokens=found)
        return
    for name, each in found.items():
        for line in token_lines(name, each):
            console().print(line)
