"""Examples: inputs with their targets, from files and from tasks."""

from moreish.data.examples.corpus import ExampleCorpus, guess_target_form
from moreish.data.examples.encode import (
    ProblemStream,
    encode_examples,
    example_dataset,
    split_examples,
    tokens_of,
)
from moreish.data.examples.problems import task_corpus
from moreish.data.examples.read import (
    ExampleFormat,
    looks_like_examples,
    read_examples,
    table_columns,
)
from moreish.data.examples.stream import StreamSampler
