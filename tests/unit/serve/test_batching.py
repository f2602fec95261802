"""Continuous batching: what a text becomes does not depend on what is written beside it."""

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_models import CASES, VOCABULARY, build

from conftest import Proved, item_tokens
from moreish.generate.constrained import Constraint, compile_constraint
from moreish.generate.sampling import Sampling
from moreish.generate.writer import TextGenerator
from moreish.models import Model, build_model, model_config
from moreish.serve.batching import (
    DeadlineExceeded,
    Engine,
    GenerationFailed,
    QueueFull,
    ShuttingDown,
)
from moreish.serve.batching.batch import Batch
from moreish.serve.batching.batch_invariance import transpose_weights
from moreish.serve.batching.detokenizer import StreamDetokenizer
from moreish.serve.batching.requests import GenerationRequest, SequenceDelta, SequenceRequest
from moreish.tokenizers.base import Ids, Tokenizer
from moreish.tokenizers.byte import ByteTokenizer
from moreish.tokenizers.char import CharTokenizer

LATER = 1e9
LETTERS = CharTokenizer.build(["abcdef"], boundary=True)  # with the boundary as many as in a model
GPT: dict[str, Any] = {"layers": 2, "heads": 2, "width": 8, "context": 16, "positions": "rotary"}


def ask(seed: int, **options: Any) -> SequenceRequest:
    """A request for one text that seldom ends by itself."""
    given = {
        "prefix": np.array([0]),
        "prompt": np.array([1 + seed % 6, 2]),
        "max_tokens": 20,
        "sampling": Sampling(),
        "seed": seed,
        **options,
    }
    return SequenceRequest(**given)


def letters(draw: random.Random, count: int) -> Ids:
    return np.array([1 + draw.randrange(6) for _ in range(count)], dtype=np.int64)


def written(
    batch: Batch, jobs: list[GenerationRequest]
) -> dict[GenerationRequest, dict[int, list[SequenceDelta]]]:
    """All that comes of these jobs."""
    found: dict[GenerationRequest, dict[int, list[SequenceDelta]]] = {
        job: defaultdict(list) for job in jobs
    }
    for job in jobs:
        batch.add(job)
    while not batch.is_idle:
        for job, place, piece in batch.step():
            found[job][place].append(piece)
    return found


def alone(batch: Batch, request: SequenceRequest) -> dict[int, list[SequenceDelta]]:
    job = GenerationRequest([request], LATER)
    return written(batch, [job])[job]


def text_of(pieces: list[SequenceDelta]) -> str:
    return "".join(piece.text for piece in pieces)


def never_ending(model: Model) -> Model:
    """A model whose texts have no end: it never says the boundary."""
    forward, step = model.forward, model.decode_step

    def without(logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor([0]), -torch.inf)

    def other_forward(*given: Any) -> Any:
        logits, state = forward(*given)
        return without(logits), state

    def other_step(*given: Any) -> Any:
        logits, states = step(*given)
        return without(logits), states

    model.forward, model.decode_step = other_forward, other_step  # type: ignore[method-assign]
    return model


# --- independence ---


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_text_does_not_depend_on_its_neighbours(name: str, settings: dict) -> None:
    """Every kind of model; requests that come and go, with other lengths, seeds and samplings. What
    is compared is all: text, tokens, and the bits of their log-probabilities."""
    batch = Batch(build(name, settings), LETTERS, slots=5)
    draw = random.Random(1)
    requests = [
        ask(
            seed,
            prompt=letters(draw, draw.choice([0, 1, 3, 9, 30])),
            max_tokens=draw.randrange(1, 40),
            sampling=draw.choice([Sampling(), Sampling(temperature=0.7), Sampling(top_k=3)]),
            n=draw.choice([1, 1, 2]),
            logprobs=2,
        )
        for seed in range(24)
    ]
    expected = [alone(batch, request) for request in requests]
    together = [GenerationRequest([request], LATER) for request in requests]
    assert list(written(batch, together).values()) == expected


@pytest.mark.soak
@pytest.mark.parametrize("settings", [GPT | {"width": 128, "heads": 4, "layers": 4, "context": 64}])
def test_a_thousand_of_a_thousand(settings: dict, proved: Proved) -> None:
    """A GPT of the size that one trains, in both threads: requests come at random times."""
    torch.set_num_threads(2)
    batch = Batch(build("gpt", settings), LETTERS, slots=16)
    draw = random.Random(2)
    requests = [
        ask(
            seed,
            prompt=letters(draw, draw.randrange(100)),
            max_tokens=draw.randrange(1, 60),
            sampling=Sampling(
                temperature=draw.choice([0, 0.8, 1.0]), top_p=draw.choice([None, 0.9])
            ),
            logprobs=3,
        )
        for seed in range(1000)
    ]
    expected = [alone(batch, request)[0] for request in requests]
    found: dict[GenerationRequest, list[SequenceDelta]] = {}
    waiting = [GenerationRequest([request], LATER) for request in requests]
    jobs = list(waiting)
    while waiting or not batch.is_idle:
        for _ in range(draw.choice([0, 0, 1, 2, 20])):
            if waiting:
                batch.add(waiting.pop(0))
        for job, _, piece in batch.step():
            found.setdefault(job, []).append(piece)
    same = sum(found[job] == pieces for job, pieces in zip(jobs, expected, strict=True))
    proved(6, "texts of a seed, written among others", {"same": same})
    assert same == 1000


def test_it_writes_what_sample_writes() -> None:
    """The same seed, the same texts: number by number."""
    for settings in (GPT, {"layers": 1, "heads": 1, "width": 8, "context": 16}):
        model = build("gpt", settings)
        prompt, sampling = np.array([3]), Sampling(temperature=0.8, top_k=5)
        writer = TextGenerator(
            model=model,
            tokenizer=LETTERS,
            prompt=prompt,
            lead=np.array([0]),
            max_tokens=40,
            sampling=sampling,
            seed=5,
        )
        expected = list(writer.texts(8, lambda ids: True))
        request = ask(5, prompt=prompt, sampling=sampling, n=8, max_tokens=40, echo=True)
        found = alone(Batch(model, LETTERS, slots=3), request)
        assert [text_of(found[place]) for place in range(8)] == expected
        later = ask(
            5, prompt=prompt, sampling=sampling, n=2, first_index=6, max_tokens=40, echo=True
        )
        found = alone(Batch(model, LETTERS, slots=3), later)
        assert [text_of(found[place]) for place in range(2)] == expected[6:]


def test_the_weights_are_laid_out_anew_and_stay_the_same() -> None:
    model = build("gpt", GPT)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    transpose_weights(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    weight = model.get_parameter("blocks.0.attention.qkv.weight")
    assert weight.stride() == (1, len(weight))


def test_where_products_depend_on_neighbours_texts_are_written_one_by_one() -> None:
    """As on a machine whose products of several rows differ with the row."""
    model = build("gpt", GPT)
    step = model.decode_step

    def other(token_R: torch.Tensor, states: Any) -> Any:
        logits_RV, states = step(token_R, states)
        return logits_RV + 1e-3 * torch.arange(len(token_R))[:, None] * torch.randn(
            VOCABULARY
        ), states

    model.decode_step = other  # type: ignore[method-assign]
    batch = Batch(model, LETTERS, slots=4)
    assert batch.min_rows == 0
    model.decode_step = step  # type: ignore[method-assign]
    found = written(batch, jobs := [GenerationRequest([ask(seed)], LATER) for seed in range(6)])
    plain = Batch(build("gpt", GPT), LETTERS, slots=4)
    assert [text_of(found[job][0]) for job in jobs] == [
        text_of(alone(plain, ask(seed))[0]) for seed in range(6)
    ]


# --- what a text is told to be ---


def test_ends_and_lengths() -> None:
    """A chain: after each letter the next one, after the last the end."""
    batch = Batch(_chain(), LETTERS, slots=2)
    pieces = alone(batch, ask(0, prompt=np.array([1, 2])))[0]  # "ab"
    assert text_of(pieces) == "cdef"
    assert [piece.finish_reason for piece in pieces] == [None] * 4 + ["stop"]
    assert sum(piece.num_tokens for piece in pieces) == 4
    pieces = alone(batch, ask(0, prompt=np.array([1]), max_tokens=3))[0]
    assert (text_of(pieces), pieces[-1].finish_reason) == ("bcd", "length")
    assert pieces[-1].text == "d"  # with the last token, not after it
    pieces = alone(batch, ask(0, prompt=np.array([1]), max_tokens=0, echo=True))[0]
    assert (text_of(pieces), pieces[-1].finish_reason) == ("a", "length")


def test_stop_strings_may_span_tokens_and_are_no_part_of_the_text() -> None:
    batch = Batch(_chain(), LETTERS, slots=2)
    for stop, text in (
        (("de",), "bc"),
        (("b",), ""),
        (("x", "ef"), "bcd"),
        (("cdx", "d"), "bc"),
        (("fa",), "bcdef"),
    ):
        pieces = alone(batch, ask(0, prompt=np.array([1]), stop=stop, logprobs=1))[0]
        assert text_of(pieces) == text
        assert pieces[-1].finish_reason == "stop"
        told = [[token.text for token in piece.tokens if token.id] for piece in pieces]
        assert "".join(map("".join, told)) == text
        # A token is told with its text, neither before nor after it.
        assert list(map("".join, told)) == [piece.text for piece in pieces]


def test_echo_tells_what_the_model_made_of_the_prompt() -> None:
    batch = Batch(_chain(), LETTERS, slots=2)
    (drawn,) = (
        [drawn for piece in alone(batch, request)[0] for drawn in piece.tokens]
        for request in [ask(0, prompt=np.array([1, 2, 5]), echo=True, logprobs=2)]
    )
    assert [token.text for token in drawn] == ["a", "b", "e", "f", "<|endoftext|>"]
    assert [token.offset for token in drawn] == [0, 1, 2, 3, 4]
    sure, unlikely = pytest.approx(0, abs=1e-6), pytest.approx(-30, abs=1e-3)
    assert [token.logprob for token in drawn[1:]] == [sure, unlikely, sure, sure]
    assert drawn[2].top[0][1] == "c"  # what it would have said
    nothing_before = ask(
        0, prefix=np.array([], dtype=int), prompt=np.array([1, 2]), echo=True, logprobs=1
    )
    first = next(drawn for piece in alone(batch, nothing_before)[0] for drawn in piece.tokens)
    assert (first.logprob, first.top) == (None, [])


@pytest.mark.parametrize("name", ["bigram", "mlp", "lstm"])
def test_a_long_prompt_is_told_piece_by_piece(name: str) -> None:
    model = build(name, {"context": 400} if name == "lstm" else {})
    batch = Batch(model, LETTERS, slots=2)
    prompt = np.random.default_rng(1).integers(1, VOCABULARY, 300)
    for lead in ([0], [0, 3, 2]):
        request = ask(0, prefix=np.array(lead), prompt=prompt, echo=True, logprobs=2, max_tokens=0)
        told = [token for piece in alone(batch, request)[0] for token in piece.tokens]
        logits_TV = model(torch.tensor([[*lead, *prompt]]))[0][0, len(lead) - 1 : -1]
        logs_T = logits_TV.log_softmax(-1)[torch.arange(300), torch.tensor(prompt)]
        assert [token.id for token in told] == prompt.tolist()
        assert [token.logprob for token in told] == pytest.approx(logs_T.tolist(), abs=1e-5)
        assert [token.offset for token in told] == list(range(300))


def test_a_long_prompt_keeps_nobody_waiting() -> None:
    batch = Batch(build("bigram", {}), LETTERS, slots=4)
    prompt = np.ones(2000, dtype=int)
    batch.add(GenerationRequest([ask(0, prompt=prompt, echo=True, logprobs=0, n=2)], LATER))
    batch.add(short := GenerationRequest([ask(1, max_tokens=1)], LATER))
    ended = []
    while not batch.is_idle:
        ended += [job for job, _, piece in batch.step() if piece.finish_reason]
    assert ended[0] is short
    assert len(ended) == 3


def test_of_a_long_prompt_only_what_matters_is_read() -> None:
    for name in ("bigram", "mlp", "wavenet"):
        model = build(name, {})
        batch = Batch(model, LETTERS, slots=2)
        prompt = np.random.default_rng(1).integers(1, VOCABULARY, 3000)
        expected = alone(batch, ask(3, prompt=prompt, n=5, logprobs=0, echo=True))
        found = alone(batch, ask(3, prompt=prompt, n=5, echo=True))
        texts = {place: text_of(pieces) for place, pieces in found.items()}
        assert texts == {place: text_of(pieces) for place, pieces in expected.items()}
        assert max(map(len, texts.values())) > 3000
        batch.add(GenerationRequest([ask(3, prompt=prompt)], LATER))
        assert len(batch.waiting[0].prefill.tokens_T) == model.context


def _chain() -> Model:
    model = build("bigram", {})
    with torch.no_grad():
        table = model.get_parameter("table.weight")
        table.fill_(0.0)
        for token in range(VOCABULARY):
            table[token, (token + 1) % VOCABULARY] = 30.0
    return model


def test_a_character_that_begins_in_the_prompt_comes_whole() -> None:
    tokenizer = ByteTokenizer(boundary=False)
    model = build_model(model_config({"name": "bigram"}), 256)
    with torch.no_grad():
        table = model.get_parameter("table.weight")
        table[0x82, 0xAC] = table[0xAC, ord("!")] = 50.0
    batch = Batch(model, tokenizer, slots=2)
    prompt = tokenizer.encode("a €")[:-1]
    asked = {
        "prompt": prompt,
        "prefix": prompt[:0],
        "max_tokens": 2,
        "sampling": Sampling(temperature=0),
    }
    assert text_of(alone(batch, ask(0, **asked))[0]) == "€!"
    assert text_of(alone(batch, ask(0, **asked, echo=True))[0]) == "a €!"
    told = alone(batch, ask(0, **asked, echo=True, logprobs=0))[0]
    offsets = [token.offset for piece in told for token in piece.tokens]
    assert offsets == [0, 1, 2, 2, 2, 3]
    assert text_of(alone(batch, ask(0, **{**asked, "max_tokens": 0}, echo=True))[0]) == "a "


def test_characters_of_several_bytes_come_whole() -> None:
    """A model of bytes that can say nothing else than one text."""
    tokenizer, text = ByteTokenizer(boundary=False), "aé€😀b"
    ids = tokenizer.encode(text).tolist()
    model = build("bigram", {})
    forward = model.forward

    def says(tokens: torch.Tensor, state: Any = None) -> Any:
        at = (0 if state is None else int(state[0])) + tokens.shape[1]
        logits = torch.zeros(1, tokens.shape[1], 256)
        logits[0, -1, ids[min(at, len(ids)) - 1]] = 50.0
        return logits, torch.tensor([at])

    model.forward = says  # type: ignore[method-assign, assignment]
    model.vocab_size = 256
    batch = Batch(model, tokenizer, slots=1)
    lead = np.array([0])
    for most in range(1, len(ids) + 1):
        request = ask(0, prefix=lead, prompt=np.array([], dtype=int), max_tokens=most, logprobs=0)
        pieces = alone(batch, request)[0]
        shown = bytes(ids[:most]).decode("utf-8", "ignore")
        assert text_of(pieces) == shown
        told = [drawn.text for piece in pieces for drawn in piece.tokens]
        assert len(told) == most
        assert told[:3] == ["a", "bytes:\\xc3", "bytes:\\xa9"][:most]
    assert forward is not None


@given(
    text=st.text(st.sampled_from("ab€😀"), max_size=12),
    stops=st.lists(st.text(st.sampled_from("ab€"), min_size=1, max_size=3), max_size=3),
    data=st.data(),
)
def test_the_detokenizer_releases_what_stands_before_the_first_stop(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    detokenizer = StreamDetokenizer(stops)
    shown = ""
    for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        shown += detokenizer.add(raw[begin:end])
        assert detokenizer.num_released == len(shown)
        assert not any(stop in shown for stop in stops)
    shown += detokenizer.finish()
    # Whichever stop string is whole first ends the text.
    ends = [
        (place + len(stop), place)
        for stop in stops
        for place in range(len(text))
        if text.startswith(stop, place)
    ]
    assert detokenizer.stopped == bool(ends)
    assert text.startswith(shown)
    if not ends:
        assert shown == text
    else:
        assert len(shown) in [place for _, place in ends]


# --- slots, queues and time ---


def test_no_more_than_the_slots_are_written_and_a_cancelled_text_is_gone_at_once() -> None:
    batch = Batch(never_ending(build("gpt", GPT)), LETTERS, slots=3)
    jobs = [GenerationRequest([ask(seed, max_tokens=1000, n=2)], LATER) for seed in range(4)]
    for job in jobs:
        batch.add(job)
    for _ in range(5):
        list(batch.step())
        assert len(batch.running) == 3
    jobs[0].cancelled = True
    jobs[2].cancelled = True
    told = {job for job, _, _ in batch.step()}
    assert jobs[0] not in told
    assert {text.parent for text in (*batch.running, *batch.waiting)} == {jobs[1], jobs[3]}
    jobs[1].deadline = time.monotonic() - 1
    list(batch.step())
    assert jobs[1].is_over
    assert {text.parent for text in batch.running} == {jobs[3]}


def test_a_long_prompt_is_read_between_the_tokens_of_others() -> None:
    batch = Batch(never_ending(build("lstm", {"width": 16, "context": 2000})), LETTERS, slots=3)
    short, long = (
        GenerationRequest([ask(0, max_tokens=500)], LATER),
        GenerationRequest([ask(1, prompt=np.ones(1500, int))], LATER),
    )
    batch.add(short)
    list(batch.step())
    batch.add(long)
    turns = 0
    while long not in {text.parent for text in batch.running}:
        assert short in {job for job, _, _ in batch.step()}
        turns += 1
    assert turns == 12  # 1,501 tokens, 128 at a time


def test_constrained_texts_are_written_beside_others() -> None:
    tokenizer, tokens = item_tokens(["abba", "baba", "cab", "dad", "fed", "bed"] * 5)
    model = build("ngram", {"order": 2})
    model.fit_counts(tokens)  # type: ignore[operator]
    batch = Batch(model, tokenizer, slots=4)
    automaton = compile_constraint(Constraint(ends="d", length=(3, 5)), tokenizer, tokens, 20)
    nothing = np.array([], dtype=int)
    constrained = ask(0, prompt=nothing, n=6, automaton=automaton)
    jobs = [
        GenerationRequest([constrained], LATER),
        GenerationRequest([ask(1, prompt=nothing, n=6)], LATER),
    ]
    found = written(batch, jobs)
    texts = [text_of(found[jobs[0]][place]) for place in range(6)]
    assert all(text.endswith("d") and 3 <= len(text) <= 5 for text in texts)
    assert all(found[jobs[0]][place][-1].log_weight < 0 for place in range(6))
    assert found[jobs[0]] == alone(batch, constrained)


@pytest.fixture
def engines() -> Iterator[Any]:
    """Makes engines that are stopped at the end."""
    made: list[Engine] = []

    def make(model: Model, tokenizer: Tokenizer = LETTERS, **options: Any) -> Engine:
        made.append(Engine(model, tokenizer, **{"slots": 2, "queue": 4, **options}))
        return made[-1]

    yield make
    for engine in made:
        engine.stop(0)
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


async def heard(engine: Engine, request: SequenceRequest, seconds: float = 60) -> str:
    text = ""
    with closing(engine.submit([request], seconds)) as answer:
        async for pieces in answer:
            text += "".join(piece.text for _, piece in pieces)
    return text


def test_the_engine_answers_many_at_once(engines: Any) -> None:
    ended = []
    engine = engines(build("gpt", GPT), queue=100, on_finished=ended.append)
    batch = Batch(build("gpt", GPT), LETTERS, slots=2)
    expected = [text_of(alone(batch, ask(seed))[0]) for seed in range(30)]

    async def main() -> list[str]:
        return await asyncio.gather(*(heard(engine, ask(seed)) for seed in range(30)))

    assert asyncio.run(main()) == expected
    assert (engine.num_requests, engine.num_running, engine.num_waiting) == (0, 0, 0)
    assert len(ended) == 30
    assert all(answer.time_to_first_token is not None for answer in ended)
    assert engine.num_generated == sum(map(len, expected))


def test_a_full_queue_says_when_to_come_again(engines: Any) -> None:
    engine = engines(never_ending(build("gpt", GPT)))

    async def main() -> None:
        answers = [engine.submit([ask(seed, max_tokens=10**6)], 60) for seed in range(6)]
        with pytest.raises(QueueFull) as busy:
            engine.submit([ask(7)], 60)
        assert 1 <= busy.value.retry_after <= 60
        with pytest.raises(QueueFull):
            engine.submit([ask(7, n=7)], 60)
        for answer in answers:
            answer.close()
        assert await heard(engine, ask(8, max_tokens=3)) != ""

    asyncio.run(main())


def test_who_goes_frees_the_slot_within_a_token(engines: Any) -> None:
    engine = engines(never_ending(build("gpt", GPT)))

    async def main() -> None:
        answers = [engine.submit([ask(seed, max_tokens=10**6)], 60) for seed in range(2)]
        async for _ in answers[0]:
            break
        for answer in answers:
            answer.close()
        drawn = engine.num_generated
        async with asyncio.timeout(10):
            while engine.num_running or engine.num_waiting:
                await asyncio.sleep(0.001)
        assert engine.num_generated <= drawn + 2 * 2  # the step that was under way, and no other

    asyncio.run(main())


def test_deadlines_hold_for_those_who_write_and_those_who_wait(engines: Any) -> None:
    engine = engines(never_ending(build("gpt", GPT)))

    async def main() -> None:
        asked = [heard(engine, ask(seed, max_tokens=10**6), seconds=0.3) for seed in range(4)]
        began = time.monotonic()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in found] == [DeadlineExceeded] * 4
        assert time.monotonic() - began < 5

    asyncio.run(main())


def test_a_model_that_breaks_fails_those_who_wait_and_nobody_else(
    engines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = build("gpt", GPT)
    engine = engines(model)
    step = model.decode_step

    def broken(*given: Any) -> Any:
        raise RuntimeError("out of luck")

    async def main() -> None:
        model.decode_step = broken  # type: ignore[method-assign]
        asked = [heard(engine, ask(seed)) for seed in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert GenerationFailed in {type(error) for error in found}
        model.decode_step = step  # type: ignore[method-assign]
        assert await heard(engine, ask(4, max_tokens=3)) != ""

    asyncio.run(main())
    assert "out of luck" in caplog.text


def test_those_who_are_given_up_at_the_end_hear_of_it(engines: Any) -> None:
    engine = engines(never_ending(build("gpt", GPT)), queue=10)

    async def main() -> None:
        asked = [asyncio.create_task(heard(engine, ask(s, max_tokens=10**6))) for s in range(5)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(engine.stop, 0.1)
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(error) for error in found} == {ShuttingDown}

    asyncio.run(main())


def test_the_first_reason_is_told(engines: Any) -> None:
    """Who is given up at the end is over too, and would hear that it took too long."""
    engine = engines(build("gpt", GPT))

    async def main() -> None:
        with closing(engine.submit([ask(1, max_tokens=10**6)], 60)) as answer:
            answer.put(ShuttingDown())
            answer.put(DeadlineExceeded())
            with pytest.raises(ShuttingDown):
                async for _ in answer:
                    pass

    asyncio.run(main())


def test_stopping_lets_those_end_who_have_begun(engines: Any) -> None:
    engine = engines(build("gpt", GPT), queue=10)

    async def main() -> None:
        asked = [asyncio.create_task(heard(engine, ask(seed))) for seed in range(8)]
        await asyncio.sleep(0)
        await asyncio.to_thread(engine.stop, 30)
        assert len([text for text in await asyncio.gather(*asked) if text]) >= 7
        with pytest.raises(ShuttingDown):
            engine.submit([ask(9)], 60)

    asyncio.run(main())
