"""`moreish predict`."""

import csv
import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from moreish.cli.base import Json, app, find_run, print_json, read_standard_input, working
from moreish.errors import MoreishError, visible
from moreish.utils.files import user_path


@app.command()
def predict(
    path: Annotated[Path, Argument(metavar="RUN", help="Run folder.", parser=find_run)],
    inputs: Annotated[
        str,
        Argument(metavar="[FILE|-]", help="File with one input a line, or - for standard input."),
    ] = "-",
    text: Annotated[
        list[str] | None,
        Option(metavar="INPUT", help="An input itself; may be repeated."),
    ] = None,
    beams: Annotated[int, Option(help="Number of hypotheses of beam search (default 1).")] = 1,
    length_penalty: Annotated[
        float, Option(help="Exponent of the length in beam search; 0 favors short targets.")
    ] = 1.0,
    temperature: Annotated[
        float, Option(help="Sample targets at this temperature instead (default 0).")
    ] = 0.0,
    seed: Annotated[int, Option(help="Random seed of sampling.")] = 0,
    unknown: Annotated[
        str, Option(help="What to do with unknown characters: error or drop.")
    ] = "error",
    as_json: Json = False,
) -> None:
    """Predict the targets of inputs, with a run that was trained on examples or a task."""
    from moreish.runs import Run

    run = Run.open(path)
    texts = _read_inputs(inputs) if text is None else text
    with working(f"Predicting {len(texts):,} targets …"):
        found = run.predict(
            texts,
            beams=beams,
            length_penalty=length_penalty,
            temperature=temperature,
            seed=seed,
            unknown=unknown,
        )
    if as_json:
        predictions = [
            {
                "input": each.input,
                "target": each.target,
                "probability": each.probability,
                "alternatives": [
                    {"target": target, "probability": probability}
                    for target, probability in each.alternatives
                ],
            }
            for each in found
        ]
        print_json(run=run.path, predictions=predictions)
        return
    shown = visible if sys.stdout.isatty() else str
    writer = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
    for each in found:
        writer.writerow([shown(each.input), shown(each.target), f"{each.probability:.4f}"])


def _read_inputs(name: str) -> list[str]:
    """Return the lines of a file or of standard input; empty ones at the end are left out.

    Raises:
        MoreishError: the file does not exist, is no text, or has no inputs.
    """
    if name == "-":
        content = read_standard_input()
    else:
        path = user_path(name)
        try:
            content = path.read_text("utf-8")
        except FileNotFoundError:
            raise MoreishError(f"no file {path}; an input itself goes to --text") from None
        except ValueError:
            raise MoreishError(f"{path} is not UTF-8 text") from None
    lines = content.rstrip("\n").split("\n")
    if lines == [""]:
        raise MoreishError("there are no inputs: write one on each line")
    return lines
