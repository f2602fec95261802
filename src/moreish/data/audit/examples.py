"""The audit of examples: what makes targets impossible to learn, or measurements meaningless."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise

from moreish.data.audit.audit import AuditReport
from moreish.data.audit.checks import Finding
from moreish.data.examples import ExampleCorpus
from moreish.data.text import MAX_EXAMPLE
from moreish.utils.text import plural

MAX_SHARE = 0.9
"""Share of the most frequent label from which labels are reported as unbalanced."""

MIN_OCCURRENCES = 3
"""Number of examples of a label below which it can hardly be learned."""

MAX_TARGET = 1024
"""Characters of a target from which it may not fit into the default context."""

LONG = 4096
"""Characters of an example from which it is reported as long."""


def audit_examples(corpus: ExampleCorpus, *, source_args: Sequence[str] = ()) -> AuditReport:
    """Audit examples.

    Args:
        corpus: the examples.
        source_args: see `AuditReport`.
    """
    stats = corpus.stats
    findings = [*_inputs(corpus), *(_labels(corpus) if corpus.form == "label" else ())]
    return AuditReport(
        name=corpus.name,
        kind="examples",
        documents=stats.documents,
        lines=stats.documents,
        characters=stats.characters,
        distinct_characters=len(stats.alphabet),
        is_complete=True,
        source_args=list(source_args),
        notes=corpus.notes,
        findings=sorted(findings, key=lambda finding: finding.severity != "warning"),
    )


def _inputs(corpus: ExampleCorpus) -> Iterator[Finding]:
    counts = Counter(corpus.examples)
    copies = {example: count for example, count in counts.items() if count > 1}
    if copies:
        yield Finding(
            name="duplicates",
            description="copies of other examples, with the same input and target",
            count=sum(copies.values()) - len(copies),
            example=_shorten(max(copies, key=lambda each: copies[each]).input),
        )
    targets: dict[str, set[str]] = {}
    for source, target in corpus.examples:
        targets.setdefault(source, set()).add(target)
    several = [source for source, found in targets.items() if len(found) > 1]
    if several:
        source = several[0]
        yield Finding(
            name="conflicting targets",
            description="inputs with more than one target",
            count=len(several),
            example=_shorten(f"{source}: {', '.join(sorted(targets[source]))}"),
            severity="warning" if corpus.form == "label" else "note",
        )
    if corpus.sizes_of_split:
        yield from _leaks(corpus)
    empty = sum(not example.input for example in corpus.examples)
    if empty:
        yield Finding(name="empty inputs", description="examples with an empty input", count=empty)
    targets_too_long = [e.target for e in corpus.examples if len(e.target) > MAX_TARGET]
    if targets_too_long and corpus.form == "text":
        yield Finding(
            name="long targets",
            description=f"targets of more than {MAX_TARGET:,} characters, which is the largest "
            "default context: a target is never cut, so they may need --context N",
            count=len(targets_too_long),
            example=_shorten(targets_too_long[0]),
            severity="warning",
        )
    long = [e for e in corpus.examples if len(e.input) + len(e.target) > LONG]
    if long:
        yield Finding(
            name="long examples",
            description=f"examples of more than {LONG:,} characters, which take much memory; with "
            "--context N, only the end of an input is read",
            count=len(long),
            example=_shorten(long[0].input),
        )


def _leaks(corpus: ExampleCorpus) -> Iterator[Finding]:
    """Report inputs of validation and test that are in an earlier split too."""
    seen: set[str] = set()
    leaked = []
    for first, last in pairwise(accumulate(corpus.sizes_of_split, initial=0)):
        inputs = [example.input for example in corpus.examples[first:last]]
        leaked += [source for source in inputs if source in seen]
        seen |= set(inputs)
    if leaked:
        yield Finding(
            name="inputs in several splits",
            description="examples of validation and test whose input is in the training split too, "
            "or in both, so that measurements are too good",
            count=len(leaked),
            example=_shorten(leaked[0]),
            severity="warning",
        )


def _labels(corpus: ExampleCorpus) -> Iterator[Finding]:
    counts = Counter(example.target for example in corpus.examples)
    (label, count), *_ = counts.most_common(1)
    share = count / len(corpus.examples)
    if share >= MAX_SHARE:
        yield Finding(
            name="unbalanced labels",
            description=f"of {plural(len(corpus.examples), 'example')} have the same label "
            f"({share:.1%}): accuracy says little, look at macro F1",
            count=count,
            example=_shorten(label),
            severity="warning",
        )
    rare = [label for label, count in counts.items() if count < MIN_OCCURRENCES]
    if rare:
        yield Finding(
            name="rare labels",
            description=f"labels with fewer than {MIN_OCCURRENCES} examples, which can hardly be "
            "learned",
            count=len(rare),
            example=_shorten(", ".join(rare[:5])),
        )


def _shorten(text: str) -> str:
    text = " ".join(chain.from_iterable(line.split() for line in text.split("\n")))
    return text if len(text) <= MAX_EXAMPLE else text[: MAX_EXAMPLE - 1] + "…"
