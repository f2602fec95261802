"""What the losses of a run mean, in words."""

import math

from moreish.errors import command
from moreish.models import CountBasedModel, NetworkWithCounts
from moreish.runs.run import Run
from moreish.utils.text import plural

SMALL_DIFFERENCE = 0.05
LARGE_DIFFERENCE = 0.15
"""Differences of training and validation loss, as fractions of the latter."""

SHORT_TEXT = 5000
"""Characters of running text below which n-gram counts know too few contexts."""


def has_only_known_items(run: Run) -> bool:
    """Return whether all items of the validation split are in the training split."""
    is_unseen = run.unseen_items("val", run.split("val"))
    return is_unseen is not None and not is_unseen.any()


def short_text_note(run: Run) -> str:
    """Return what to do about the samples of n-gram counts of a short running text; an empty string
    for other runs."""
    characters = run.record.data.characters
    is_counted = isinstance(run.model, CountBasedModel)
    if run.kind == "lines" or not is_counted or not 0 < characters < SHORT_TEXT:
        return ""
    return (
        f"The text is short ({plural(characters, 'character')}), so many samples are noise: more "
        "text helps, and so does a lower temperature: "
        f"{command('sample', run.path, '--temperature', '0.7')}"
    )


def describe_losses(run: Run) -> str:
    """Return what the training and the validation loss mean, in one or two sentences; an empty
    string without a training loss. A sentence that begins with "Warning" says that the model is not
    what a user wants."""
    guessing, val, train = run.guessing_loss, run.scores["val"], run.scores.get("train")
    if not val.loss <= guessing:
        return (
            "Warning: the validation loss is above that of guessing. This model predicts new text "
            "worse than no model; try another one, or more text."
        )
    if train is None:
        return ""
    if train.loss > guessing:
        return (
            "Warning: the training loss is above that of guessing. The model fails on its own "
            "text; try another one: --model gpt."
        )
    if run.kind == "lines" and has_only_known_items(run):
        return (
            "Every validation item is in the training split too, so both losses measure how well "
            "the frequencies of the items are learned."
        )
    other, reference = ("validation", val) if (new := val.new_items) is None else ("new items", new)
    gap = reference.loss - train.loss
    noise = 2 * math.hypot(*(e for e in (train.stderr, reference.stderr) if math.isfinite(e)))
    margin = max(noise, SMALL_DIFFERENCE * val.loss)
    is_counted = isinstance(run.model, CountBasedModel)
    has_counts = is_counted or isinstance(run.model, NetworkWithCounts)
    if gap < -margin and has_counts and run.kind == "lines":
        return (
            f"Warning: the training loss is higher than on {other}. The model prefers what "
            "the training split lacks, as in a list of nearly all possible items that has none "
            "twice; --model gpt or --model kneser-ney reproduces such a list better."
        )
    if gap < -margin:
        return (
            f"The training loss is {-gap:.2f} higher than on {other}: the training split is harder "
            "to predict."
        )
    if gap <= margin:
        advice = "more text" if is_counted else "more minutes or a larger model"
        return (
            f"The training loss is about the same as on {other}: the model has learned rules, not "
            f"the text by heart, and {advice} may lower both."
        )
    copies = f"How many samples are copies: {command('novelty', run.path)}"
    if has_counts:
        return (
            f"The training loss is {gap:.2f} lower than on {other} because the n-gram counts "
            f"contain the training text; judge the model by its loss on {other}. {copies}"
        )
    if gap > LARGE_DIFFERENCE * val.loss:
        return (
            f"The training loss is {gap:.2f} lower than on {other}: the model knows much of its "
            "text by heart. More text or a smaller model would help more than longer training. "
            f"{copies}"
        )
    return f"The training loss is {gap:.2f} lower than on {other}, which is usual."
