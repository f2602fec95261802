"""Encoding of examples: each is an item `· input separator target ·` of the token stream."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moreish.data.examples.corpus import ExampleCorpus
from moreish.data.examples.problems import training_problem
from moreish.data.split import SplitName, SplitRule
from moreish.data.token_dataset import TokenDataset
from moreish.tasks import Example, Task
from moreish.tokenizers import ExampleTokenizer


def encode_examples(
    corpus: ExampleCorpus, tokenizer: ExampleTokenizer, rule: SplitRule, seed: int
) -> dict[SplitName, TokenDataset]:
    """Split a corpus of examples and encode it.

    Args:
        rule, seed: as in `ExampleCorpus.split`.

    Raises:
        MoreishError: there are too few different inputs.
    """
    return {
        name: tokens_of(examples, tokenizer, corpus.task if name == "train" else None)
        for name, examples in corpus.split(rule, seed).items()
    }


def tokens_of(
    examples: Iterable[Example], tokenizer: ExampleTokenizer, task: Task | None = None
) -> TokenDataset:
    """Encode examples as a token stream; see `example_dataset`."""
    parts = [np.array([tokenizer.boundary_id])]
    parts += [tokenizer.encode_example(*example) for example in examples]
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    return example_dataset(np.concatenate(parts).astype(dtype), tokenizer, task)


def example_dataset(
    ids_N: Any, tokenizer: ExampleTokenizer, task: Task | None = None
) -> TokenDataset:
    """Return a token stream of examples as a data set.

    Args:
        ids_N: the tokens.
        tokenizer: their tokenizer.
        task: the task that training problems are drawn from, of which these are a sample.
    """
    assert tokenizer.boundary_id is not None
    return TokenDataset(
        ids_N,
        items=True,
        boundary=tokenizer.boundary_id,
        separator=tokenizer.separator_id,
        predicts_end=tokenizer.form != "label",
        stream=None if task is None else ProblemStream(task, tokenizer),
    )


def split_examples(
    tokens: TokenDataset, tokenizer: ExampleTokenizer, number: int | None = None
) -> list[Example]:
    """Return the examples of a token stream in the form that a model reads and writes them: all, or
    those of `number` different inputs that are spread evenly over it."""
    places = zip(tokens.boundaries[:-1].tolist(), tokens.separators.tolist(), strict=True)
    source_of = [tokens.ids_N[first + 1 : last].tobytes() for first, last in places]
    sources = list(dict.fromkeys(source_of))
    if number is not None and number < len(sources):
        chosen = np.linspace(0, len(sources) - 1, number).round().astype(int)
        sources = [sources[place] for place in chosen.tolist()]
    kept, examples = set(sources), []
    for index, source in enumerate(source_of):
        if source in kept:
            ids = tokens.item(index)
            cut = int(np.flatnonzero(ids == tokenizer.separator_id)[0])
            target = tokenizer.decode_target(ids[cut + 1 :])
            examples.append(Example(tokenizer.decode_input(ids[:cut]), target))
    return examples


@dataclass(frozen=True, eq=False)
class ProblemStream:
    """The training problems of a task as tokens."""

    task: Task
    tokenizer: ExampleTokenizer

    def tokens(self, seed: int, first: int, number: int) -> TokenDataset:
        """Return some problems as tokens."""
        examples = (training_problem(self.task, seed, first + each) for each in range(number))
        return tokens_of(examples, self.tokenizer)
