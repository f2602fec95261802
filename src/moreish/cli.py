"""The verbs. A thin skin over `moreish.api`; torch is imported only by the verbs that need it."""

import io
import json
import math
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from moreish.errors import MoreishError, command

if TYPE_CHECKING:
    from moreish.run import Run

app = typer.Typer(
    name="moreish",
    help="Give it a text; it gives you a language model of that text, trained here and now.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="moreish VERB --help explains a verb. Start with: moreish train",
)
data_app = typer.Typer(help="The built-in data sets: list, show, get.", no_args_is_help=True)
app.add_typer(data_app, name="data")

OUT_OF_MEMORY = re.compile("allocate memory|out of memory", re.IGNORECASE)
"""What PyTorch's errors say, which are plain RuntimeErrors on a CPU."""

RESULTS = {
    "status",
    "parameters",
    "splits",
    "seconds",
    "evaluation_seconds",
    "scoring_seconds",
    "tokens_per_second",
}
"""Of run.json, what `train --json` prints."""

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/names-gpt.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moreish {version('moreish')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print it.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command()
def train(
    source: Annotated[
        str | None,
        typer.Argument(help="A built-in data set, a file, or a folder of text files (names)."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="ngram, bigram, mlp or gpt (gpt).")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train this long (1).")] = None,
    steps: Annotated[int | None, typer.Option(help="… or this many steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="… or this often over the data.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that the model sees.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and batches (0).")] = None,
    kind: Annotated[
        str | None, typer.Option("--as", help="lines (each an item) or text; else guessed.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="seeded, or lecture: the lectures' own split (seeded).")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="char or byte (char).")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of the source (utf-8).")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder (a new one in runs/).")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run at --out.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Any setting, e.g. train.lr=0.001."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A recipe (TOML) of settings.")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted training.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model of a text. Without arguments: names, a GPT, about a minute."""
    from moreish import api
    from moreish.console import TrainingView, console, score_table
    from moreish.settings import from_assignments

    out_console = console(stderr=as_json)
    view = TrainingView(out_console)
    options: dict[str, Any] = {
        "source": source,
        "model": model,
        "minutes": minutes,
        "steps": steps,
        "epochs": epochs,
        "context": context,
        "seed": seed,
        "kind": kind,
        "split": split,
        "tokenizer": tokenizer,
        "encoding": encoding,
        "out": out,
        "config": config,
    }
    try:
        if resume is None:
            run = api.train(
                **options,
                settings=from_assignments(settings or []),
                overwrite=overwrite,
                report=view,
            )
        elif settings or overwrite or any(value is not None for value in options.values()):
            raise MoreishError("--resume takes no other settings: the run has its own")
        else:
            run = api.resume(resume, report=view)
    finally:
        view.close()
    record = run.record
    if record.status == "interrupted":
        go_on = command("train", "--resume", run.path)
        out_console.print(f"\nStopped and saved. Go on with: {go_on}")
        raise typer.Exit(130)
    if as_json:
        print_json({"run": str(run.path), **record.model_dump(mode="json", include=RESULTS)})
        return
    if record.status == "stopped early":
        out_console.print("Stopped early: validation was rising. The best weights are kept.")
    out_console.print()
    out_console.print(score_table(run.scores))
    out_console.print(f"\nMore of it: {command('sample', run.path)}")


@app.command()
def sample(
    path: RunPath,
    prompt: Annotated[str, typer.Option(help="How each text begins.")] = "",
    n: Annotated[
        int | None, typer.Option("-n", help="How many (10 items, or 1 running text).")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="The most tokens to draw for each.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="0: always the likeliest; 1: as learned.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="… or from the likeliest share p.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same output.")] = 0,
    new_only: Annotated[
        bool, typer.Option("--new-only", help="Nothing that stands in the data.")
    ] = False,
    unique: Annotated[bool, typer.Option("--unique", help="No text twice.")] = False,
    unknown: Annotated[
        str, typer.Option(help="Characters of the prompt that the model never saw: error or drop.")
    ] = "error",
    as_json: Json = False,
) -> None:
    """Write more: new items of a list, or running text that streams in."""
    from moreish import api
    from moreish.console import visible

    run = api.load(path)
    on_terminal = sys.stdout.isatty()
    options: dict[str, Any] = {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "unknown": unknown,
    }
    n = n if n is not None else (10 if run.kind == "lines" else 1)
    if run.kind == "text" and n == 1 and not (new_only or unique or as_json):
        for piece in run.stream(**options):
            sys.stdout.write(visible(piece) if on_terminal else piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    texts = run.sample(n, new_only=new_only, unique=unique, **options)
    if as_json:
        print_json({"run": str(run.path), "samples": texts})
        return
    separator = "\n" if run.kind == "lines" else "\n\n---\n\n"
    written = separator.join(texts) + "\n"
    sys.stdout.write(visible(written) if on_terminal else written)


@app.command(name="eval")
def evaluate(
    path: RunPath,
    test: Annotated[
        bool, typer.Option("--test", help="The test split too; that is counted.")
    ] = False,
    text: Annotated[
        str | None,
        typer.Option(help="Instead: how likely this text is, letter by letter; - reads it."),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(help="Overlap windows of running text: each scores this many tokens."),
    ] = None,
    unknown: Annotated[
        str, typer.Option(help="Characters of --text that the model never saw: error or drop.")
    ] = "error",
    as_json: Json = False,
) -> None:
    """Exact losses over whole splits, or the probability of a text."""
    from moreish import api
    from moreish.console import TrainingView, console, score_table
    from moreish.training.events import Working

    run = api.load(path)
    if text is not None:
        if test or stride is not None:
            raise MoreishError("--text is instead of the splits: leave out --test and --stride")
        _evaluate_text(run, _read_stdin() if text == "-" else text, unknown, as_json)
        return
    view = TrainingView(console(stderr=True))
    try:
        scores = run.evaluate(
            test=test,
            stride=stride,
            progress=lambda split, share: view(Working(what=f"evaluating {split}", share=share)),
        )
    finally:
        view.close()
    count = run.record.test_evaluations
    if as_json:
        splits = {name: score.as_json() for name, score in scores.items()}
        print_json({"run": str(run.path), "splits": splits, "test_evaluations": count})
        return
    console().print(score_table(scores))
    if test:
        times = "once" if count == 1 else f"{count} times"
        counted = f"\nThe test split of this run has been evaluated {times}."
        console().print(counted, style="dim")


def _read_stdin() -> str:
    from moreish.data.text import decode, with_line_feeds

    return with_line_feeds(decode(sys.stdin.buffer.read(), "utf-8", "standard input")[0])


def _evaluate_text(run: "Run", text: str, unknown: str, as_json: bool) -> None:
    from moreish.console import console, surprisal_table, visible

    items = [line for line in text.split("\n") if line] if run.kind == "lines" else [text]
    results = [(item, run.surprisal(item, unknown=unknown)) for item in items]
    if not results:
        raise MoreishError("there is no text to evaluate")
    tokens = [token for _, found in results for token in found]
    total = sum(token.nats for token in tokens)
    if as_json:
        print_json(
            {
                "run": str(run.path),
                "nats": finite(total),
                "nats_per_token": finite(total / len(tokens)),
                "tokens": [
                    {"token": t.token, "probability": t.probability, "nats": finite(t.nats)}
                    for t in tokens
                ],
            }
        )
        return
    for item, found in results:
        if len(results) > 1:
            console().print(visible(item), style="bold")
        console().print(surprisal_table(found))
    mean = total / len(tokens)
    console().print(f"\nlog-likelihood {-total:.4f} nats, {mean:.4f} nats per token")


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """The catalog, and what of it is on this machine."""
    from moreish.data.catalog import CATALOG, is_here

    if as_json:
        entries = [{"name": e.name, "title": e.title, "here": is_here(e)} for e in CATALOG.values()]
        print_json({"data": entries})
        return
    for entry in CATALOG.values():
        here = "" if is_here(entry) else "  (fetched when needed)"
        typer.echo(f"{entry.name:<15}{entry.title}{here}")


@data_app.command("show")
def data_show(name: str, as_json: Json = False) -> None:
    """One data set: what it is, where it comes from, under which licence."""
    from moreish.data.catalog import cache_path, find, is_here

    entry = find(name)
    facts = {
        "name": entry.name,
        "title": entry.title,
        "kind": entry.kind,
        "source": entry.source,
        "address": entry.url,
        "licence": entry.licence,
        "sha256": entry.sha256,
        "here": is_here(entry),
        "cache": None if entry.url is None else str(cache_path(entry)),
    }
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if value is not None:
            typer.echo(f"{key:<9}{'yes' if value is True else 'no' if value is False else value}")


@data_app.command("get")
def data_get(name: str, as_json: Json = False) -> None:
    """Fetch a data set now, so that it is here without a network later."""
    from moreish.data.catalog import find, load, place

    entry = find(name)
    text = load(name)
    where = str(place(entry) or "inside the package")
    if as_json:
        print_json({"name": name, "characters": len(text), "where": where})
        return
    typer.echo(f"{name}: {len(text):,} characters, {where}")


def print_json(data: dict[str, Any]) -> None:
    """One object on standard output."""
    everything = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(data, ensure_ascii=not everything, allow_nan=False) + "\n")


def finite(value: float) -> float | None:
    """JSON has no infinity and no NaN: they become null."""
    return value if math.isfinite(value) else None


def main() -> NoReturn:
    """Run a verb; a user's mistake is one line on standard error and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show becomes a ?
            stream.reconfigure(errors="replace")
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except MoreishError as error:
        fail(str(error))
    except typer.TyperException as error:
        fail(error.format_message())
    except BrokenPipeError:  # the reader has seen enough, as in `moreish sample RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
            fail("out of memory: try a smaller batch (--set train.batch_tokens) or a smaller model")
        raise
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("moreish: interrupted\n")
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def fail(message: str) -> NoReturn:
    """One line, exit status 2. A bare `moreish` has shown its help, and has nothing to add."""
    if message:
        sys.stderr.write(f"moreish: {' '.join(message.split())}\n")
    sys.exit(2)
