"""Items that match, drawn by the engine as `moreish sample` draws them."""

import random
import re
import time
from contextlib import closing, suppress
from dataclasses import replace

from moreish.errors import MoreishError
from moreish.evaluate import TrainingIndex
from moreish.generate import (
    POOL_FACTOR,
    CompileLimits,
    Constraint,
    TextGenerator,
    parse_length,
    resample,
)
from moreish.serve.batching import DeadlineExceeded, SequenceRequest
from moreish.serve.executor import BackgroundExecutor
from moreish.serve.http import ApiError, Limits, bad_request
from moreish.serve.native import schemas as shapes
from moreish.serve.native.inspect import check_length, check_searchable
from moreish.serve.openai import encode_prompt
from moreish.serve.registry import ServedModel

ATTEMPTS_PER_ITEM = 40
"""Texts drawn for each that is asked for, before giving up on finding one that is wanted."""

LIST_FACTOR = 8
"""Times as many texts, and tokens, as a completion may have: items are short."""

MAX_ROUND = 64
"""Texts that are asked of the engine together, so that others come between."""

LOOKUP_CHUNK = 8
"""Items that are looked up together on the side, for the same reason."""

MAX_PATTERN_LENGTH = 500
"""Characters of a constraint."""

FLAGS = r"--(ends|contains|regex|length|max-tokens)\b"
"""How the command line calls what is asked here."""

REGEX_LIMITS = CompileLimits(seconds=2, bytes=2**26)


async def list_items(
    served: ServedModel, asked: shapes.ListRequest, side: BackgroundExecutor, limits: Limits
) -> shapes.ListResponse:
    """The items, with what stands in the data and what is nearest to each."""
    until = time.monotonic() + limits.seconds
    seed = random.getrandbits(32) if asked.seed is None else asked.seed % 2**63
    writer = await side.run(_writer, served, asked, seed, limits)
    known = await side.run(lambda: served.run.known) if asked.new_only else None
    texts = await _drawn(served, asked, writer, known, until, limits)
    items = []
    for first in range(0, len(texts), LOOKUP_CHUNK):
        items += await side.run(_looked_up, served, texts[first : first + LOOKUP_CHUNK])
    return shapes.ListResponse(items=items, seed=seed)


def _writer(
    served: ServedModel, asked: shapes.ListRequest, seed: int, limits: Limits
) -> TextGenerator:
    """What the command line would draw with. Raises ApiError (400) and MoreishError."""
    run = served.run
    if run.kind != "lines":
        raise bad_request(
            "model", f"{served.name} is a model of running text; lists come from lists"
        )
    if asked.n > (most := LIST_FACTOR * limits.n):
        raise bad_request("n", f"n: {asked.n:,} is more than {most:,}, the most here")
    check_length("starts", len(asked.starts), limits)
    encode_prompt(asked.starts, served, "starts")
    for name in ("ends", "contains", "regex", "length"):
        if len(getattr(asked, name) or "") > MAX_PATTERN_LENGTH:
            raise bad_request(name, f"{name}: more than {MAX_PATTERN_LENGTH} characters")
    try:
        constraint = Constraint(
            ends=asked.ends or None,
            contains=asked.contains or None,
            regex=asked.regex or None,
            length=parse_length(asked.length) if asked.length else None,
        )
        if constraint or asked.new_only:
            check_searchable(served)
        return run.writer(
            prompt=asked.starts,
            max_tokens=min(run.default_max_tokens(constraint), limits.max_tokens),
            sampling=asked.sampling,
            seed=seed,
            asked=constraint,
            effort=REGEX_LIMITS,
        )
    except MoreishError as error:
        if (flag := re.search(FLAGS, str(error))) is None:
            raise
        raise bad_request(flag[1], re.sub(FLAGS, r"\1", str(error))) from None


async def _drawn(
    served: ServedModel,
    asked: shapes.ListRequest,
    writer: TextGenerator,
    known: TrainingIndex | None,
    until: float,
    limits: Limits,
) -> list[str]:
    """The texts that are wanted, in the order of their numbers; see `TextGenerator.texts`."""
    ask = SequenceRequest(
        lead=writer.lead,
        prompt=writer.prompt,
        max_tokens=writer.max_tokens,
        sampling=writer.sampling,
        seed=writer.seed,
        automaton=writer.automaton,
    )
    wanted = asked.n if writer.automaton is None else POOL_FACTOR * asked.n
    least = 8 if asked.new_only or asked.unique else 1
    most = min(MAX_ROUND, limits.queue)
    found: list[str] = []
    weights: list[float] = []
    seen: set[str] = set()
    first, left = 0, LIST_FACTOR * limits.total_tokens
    while len(found) < wanted and first < ATTEMPTS_PER_ITEM * asked.n and left > 0:
        if (seconds := until - time.monotonic()) <= 0:
            raise DeadlineExceeded
        size = min(most, max(least, wanted - len(found)))
        drawn = await _round(served, replace(ask, n=size, first=first), seconds)
        for rest, weight, tokens in drawn:
            left -= tokens
            text = asked.starts + rest
            if known is not None and text.encode() in known:
                continue
            if asked.unique and text in seen:
                continue
            seen.add(text)
            found.append(text)
            weights.append(weight)
        first += size
    if not found:
        message = f"none found in {first:,} tries: raise the temperature, or ask less of them"
        raise ApiError(400, message)
    if writer.automaton is None:
        return found[: asked.n]
    chosen = resample(weights[:wanted], asked.n, writer.seed)
    return [found[place] for place in chosen]


async def _round(
    served: ServedModel, ask: SequenceRequest, seconds: float
) -> list[tuple[str, float, int]]:
    """Some texts, each with its weight and how many tokens it has."""
    texts, weights, tokens = [""] * ask.n, [0.0] * ask.n, [0] * ask.n
    with closing(served.engine.submit([ask], seconds)) as answer:
        async for pieces in answer:
            for place, piece in pieces:
                texts[place] += piece.text
                weights[place] += piece.log_weight
                tokens[place] += piece.drawn
    return list(zip(texts, weights, tokens, strict=True))


def _looked_up(served: ServedModel, texts: list[str]) -> list[shapes.ListItem]:
    run, there = served.run, False
    with suppress(ApiError):
        check_searchable(served)
        there = True
    items = []
    for text in texts:
        known, nearest, distance = None, None, None
        if there:
            known = text.encode() in run.known
            with suppress(MoreishError):  # the library that reckons distances is not installed
                nearest, distance = run.items.nearest(text)
        items.append(shapes.ListItem(text=text, known=known, nearest=nearest, distance=distance))
    return items


async def novelty(
    served: ServedModel, asked: shapes.NoveltyRequest, side: BackgroundExecutor, limits: Limits
) -> shapes.NoveltyResponse:
    """What each text owes to the training data."""
    check_length("texts", sum(map(len, asked.texts)), limits)
    return shapes.NoveltyResponse(
        texts=[await side.run(_novelty, served, text) for text in asked.texts]
    )


def _novelty(served: ServedModel, text: str) -> shapes.TextNovelty:
    check_searchable(served)
    (found,) = served.run.novelty([text])
    return shapes.TextNovelty(**vars(found))
