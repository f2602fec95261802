"""Suggestions for a prompt: how lines of the training data begin."""

from collections import Counter

import numpy as np

from moreish.serve.native import schemas
from moreish.serve.native.inspect import cached_per_model, training_tokens
from moreish.serve.registry import ServedModel

NUM_BEGINNINGS = 3
BEGINNING_WORDS = 3
MAX_BEGINNING_LENGTH = 40
MAX_BEGINNINGS_TOKENS = 1 << 19
"""Suggested prompts, the words of each, its characters, and the tokens that are searched."""


@cached_per_model
def find_beginnings(served: ServedModel) -> schemas.BeginningsResponse:
    """Return the most frequent beginnings of lines in running text, as suggestions for a prompt."""
    run = served.run
    if run.kind == "lines" or not run.has_data:
        return schemas.BeginningsResponse(texts=[])
    ids = np.asarray(training_tokens(served).ids_N[:MAX_BEGINNINGS_TOKENS])
    text = run.tokenizer.decode_bytes(ids).decode(errors="ignore")
    # The first and the last line may be incomplete.
    counts = Counter(filter(None, map(_beginning, text.splitlines(keepends=True)[1:-1])))
    chosen: dict[str, str] = {}
    for beginning, _ in counts.most_common():
        chosen.setdefault(beginning.split()[0], beginning)
        if len(chosen) == NUM_BEGINNINGS:
            break
    return schemas.BeginningsResponse(texts=list(chosen.values()))


def _beginning(line: str) -> str:
    """Return the first words of a line, or the whole of a short one; empty if it has none."""
    words = line.split()
    beginning = " ".join(words[:BEGINNING_WORDS])[:MAX_BEGINNING_LENGTH]
    if not line.startswith(beginning) or not any(map(str.isalpha, beginning)):
        return ""
    return f"{beginning}\n" if line.rstrip() == beginning else f"{beginning} "
