"""`moreish eval`."""

import sys
from typing import TYPE_CHECKING, Annotated

from typer import Option

from moreish.cli.base import Json, RunPath, app, print_json
from moreish.errors import MoreishError

if TYPE_CHECKING:
    from moreish.runs import Run


@app.command(name="eval")
def evaluate(
    path: RunPath,
    test: Annotated[
        bool,
        Option("--test", help="Evaluate the test split too; every such evaluation is counted."),
    ] = False,
    text: Annotated[
        str | None,
        Option(
            help="Show the probability of every token of this text instead; - reads standard input."
        ),
    ] = None,
    stride: Annotated[
        int | None,
        Option(help="Overlap the windows of running text; each scores this many tokens."),
    ] = None,
    adaptive: Annotated[
        bool,
        Option("--adaptive", help="Add the loss where the model learns from what it has read."),
    ] = False,
    code: Annotated[
        bool,
        Option("--code", help="Write the split with an arithmetic coder, and decode it (minutes)."),
    ] = False,
    unknown: Annotated[
        str,
        Option(help="What to do with characters that are not in the vocabulary: error or drop."),
    ] = "error",
    encoding: Annotated[str, Option(help="Character encoding of standard input.")] = "utf-8",
    as_json: Json = False,
) -> None:
    """Compute exact losses over whole splits, or the probability of a text."""
    from moreish import api
    from moreish.data import SPLIT_TITLES, decode_chunks, normalize_newlines
    from moreish.ui import TrainingView, console, guess_line, prediction_table, score_table

    run = api.load(path)
    if text is not None:
        if test or adaptive or code or stride is not None:
            raise MoreishError("--text goes with none of --test, --stride, --adaptive, --code")
        if text == "-":
            chunks = decode_chunks(sys.stdin.buffer, encoding, "standard input")
            text = "".join(normalize_newlines(chunks))
        _evaluate_text(run, text, unknown, as_json)
        return
    with TrainingView(console(stderr=True)) as view:
        scores = run.evaluate(
            test=test,
            stride=stride,
            adaptive=adaptive,
            code=code,
            progress=lambda split, share: view.show_progress(
                f"evaluating {SPLIT_TITLES[split]}", share
            ),
        )
    count = run.record.test_evaluations
    if as_json:
        splits = {name: score.as_json() for name, score in scores.items()}
        print_json(run=run.path, splits=splits, test_evaluations=count)
        return
    console().print(score_table(scores))
    if run.kind == "examples":
        console().print()
        console().print(prediction_table(scores))
        return
    console().print(guess_line(run.tokenizer.vocab_size), style="dim")
    if "train" not in scores:
        console().print(
            "\nThe training split was prepared with moreish prepare and is not scored.", style="dim"
        )
    if test:
        times = "once" if count == 1 else f"{count} times"
        console().print(f"\nThe test split of this run has been evaluated {times}.", style="dim")


def _evaluate_text(run: "Run", text: str, unknown: str, as_json: bool) -> None:
    from moreish.errors import visible
    from moreish.ui import console, surprisal_table

    items = [line for line in text.split("\n") if line] if run.kind == "lines" else [text]
    known = [text for item in items if (text := run.handle_unknown(item, unknown))]
    if not known:
        raise MoreishError("there is no text to evaluate")
    results = [(text, run.surprisal(text)) for text in known]
    tokens = [token for _, found in results for token in found]
    total = sum(token.nats for token in tokens)
    mean = total / len(tokens)
    if as_json:
        shown = [{"token": t.token, "probability": t.probability, "nats": t.nats} for t in tokens]
        print_json(run=run.path, nats=total, nats_per_token=mean, tokens=shown)
        return
    for item, found in results:
        if len(results) > 1:
            console().print(visible(item), style="bold")
        console().print(surprisal_table(found))
    if run.kind == "lines":
        console().print("· is the end of the item.", style="dim")
    console().print(f"\nlog-likelihood {-total:.4f} nats, {mean:.4f} nats per token")
