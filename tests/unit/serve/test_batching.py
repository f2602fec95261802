"""Continuous batching: the text of a sequence does not depend on its neighbors."""

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import Proved, item_tokens
from moreish.generate.constrained import Constraint, compile_constraint
from moreish.generate.detokenizer import StreamDetokenizer
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
from moreish.serve.batching.batch_invariance import transpose_weights
from moreish.serve.batching.requests import (
    GenerationRequest,
    SequenceDelta,
    SequenceRequest,
    TokenLogprob,
)
from moreish.serve.batching.scheduler import BatchScheduler
from moreish.tokenizers.base import Ids, Tokenizer
from moreish.tokenizers.byte import ByteTokenizer
from moreish.tokenizers.char import CharTokenizer
from support.model_contract import CASES, VOCABULARY, build
from support.serving import GENEROUS_DEADLINE_S

LATER = 1e9
LETTERS = CharTokenizer.build(["abcdef"], boundary=True)  # as many tokens as the test models have
GPT: dict[str, Any] = {"layers": 2, "heads": 2, "width": 8, "context": 16, "positions": "rotary"}


def make_sequence(seed: int, **options: Any) -> SequenceRequest:
    """A sequence for one text that rarely ends before `max_tokens`."""
    given = {
        "prefix": np.array([0]),
        "prompt": np.array([1 + seed % 6, 2]),
        "max_tokens": 20,
        "sampling": Sampling(),
        "seed": seed,
        **options,
    }
    return SequenceRequest(**given)


def random_letters(draw: random.Random, count: int) -> Ids:
    return np.array([1 + draw.randrange(6) for _ in range(count)], dtype=np.int64)


def generate(
    scheduler: BatchScheduler, requests: list[GenerationRequest]
) -> dict[GenerationRequest, dict[int, list[SequenceDelta]]]:
    """Run the batch until it is idle and return the deltas of every sequence."""
    found: dict[GenerationRequest, dict[int, list[SequenceDelta]]] = {
        request: defaultdict(list) for request in requests
    }
    for request in requests:
        scheduler.add(request)
    while not scheduler.is_idle:
        for request, place, delta in scheduler.step():
            found[request][place].append(delta)
    return found


def generate_alone(
    scheduler: BatchScheduler, sequence: SequenceRequest
) -> dict[int, list[SequenceDelta]]:
    request = GenerationRequest([sequence], LATER)
    return generate(scheduler, [request])[request]


def text_of(deltas: list[SequenceDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def tokens_of(deltas: list[SequenceDelta]) -> list[TokenLogprob]:
    return [token for delta in deltas for token in delta.tokens]


def never_ending(model: Model) -> Model:
    """Make a model that never generates the boundary, so that its texts have no end."""

    def without_boundary(compute: Any) -> Any:
        def computed(*arguments: Any) -> Any:
            logits, state = compute(*arguments)
            return logits.index_fill(-1, torch.tensor([0]), -torch.inf), state

        return computed

    model.forward = without_boundary(model.forward)  # type: ignore[method-assign]
    model.decode_step = without_boundary(model.decode_step)  # type: ignore[method-assign]
    return model


def alphabet_model() -> Model:
    """A model that generates the alphabet and then the end."""
    model = build("bigram", {})
    with torch.no_grad():
        table = model.get_parameter("table.weight")
        table.fill_(0.0)
        for token in range(VOCABULARY):
            table[token, (token + 1) % VOCABULARY] = 30.0
    return model


# --- independence of neighbors ---


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_text_does_not_depend_on_its_neighbors(name: str, settings: dict) -> None:
    """For every model, sequences of different lengths, seeds and sampling settings give the same
    deltas alone and together, down to the bits of the log-probabilities."""
    scheduler = BatchScheduler(build(name, settings), LETTERS, slots=5)
    draw = random.Random(1)
    sequences = [
        make_sequence(
            seed,
            prompt=random_letters(draw, draw.choice([0, 1, 3, 9, 30])),
            max_tokens=draw.randrange(1, 40),
            sampling=draw.choice([Sampling(), Sampling(temperature=0.7), Sampling(top_k=3)]),
            n=draw.choice([1, 1, 2]),
            logprobs=2,
        )
        for seed in range(8)
    ]
    expected = [generate_alone(scheduler, sequence) for sequence in sequences]
    together = [GenerationRequest([sequence], LATER) for sequence in sequences]
    assert list(generate(scheduler, together).values()) == expected


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.parametrize("settings", [GPT | {"width": 128, "heads": 4, "layers": 4, "context": 64}])
def test_a_thousand_requests_at_random_times(settings: dict, proved: Proved) -> None:
    """A GPT of realistic size in two threads."""
    torch.set_num_threads(2)
    scheduler = BatchScheduler(build("gpt", settings), LETTERS, slots=16)
    draw = random.Random(2)
    sequences = [
        make_sequence(
            seed,
            prompt=random_letters(draw, draw.randrange(100)),
            max_tokens=draw.randrange(1, 60),
            sampling=Sampling(
                temperature=draw.choice([0, 0.8, 1.0]), top_p=draw.choice([None, 0.9])
            ),
            logprobs=3,
        )
        for seed in range(1000)
    ]
    expected = [generate_alone(scheduler, sequence)[0] for sequence in sequences]
    found: dict[GenerationRequest, list[SequenceDelta]] = {}
    waiting = [GenerationRequest([sequence], LATER) for sequence in sequences]
    requests = list(waiting)
    while waiting or not scheduler.is_idle:
        for _ in range(draw.choice([0, 0, 1, 2, 20])):
            if waiting:
                scheduler.add(waiting.pop(0))
        for request, _, delta in scheduler.step():
            found.setdefault(request, []).append(delta)
    same = sum(found[request] == deltas for request, deltas in zip(requests, expected, strict=True))
    proved(6, "texts of a seed, generated in a batch with other texts", {"equal": same})
    assert same == 1000


def test_the_batch_generates_what_sample_generates() -> None:
    """The same seed gives the same texts, index by index."""
    for settings in (GPT, {"layers": 1, "heads": 1, "width": 8, "context": 16}):
        model = build("gpt", settings)
        prompt, sampling = np.array([3]), Sampling(temperature=0.8, top_k=5)
        writer = TextGenerator(
            model=model,
            tokenizer=LETTERS,
            prompt=prompt,
            prefix=np.array([0]),
            max_tokens=40,
            sampling=sampling,
            seed=5,
        )
        expected = list(writer.texts(8, lambda ids: True))
        sequence = make_sequence(5, prompt=prompt, sampling=sampling, n=8, max_tokens=40, echo=True)
        for request, texts in (
            (sequence, expected),
            (replace(sequence, n=2, first_index=6), expected[6:]),
        ):
            found = generate_alone(BatchScheduler(model, LETTERS, slots=3), request)
            assert [text_of(found[index]) for index in range(request.n)] == texts


def test_transposed_weights_have_the_same_values() -> None:
    model = build("gpt", GPT)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    transpose_weights(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    weight = model.get_parameter("blocks.0.attention.qkv.weight")
    assert weight.stride() == (1, len(weight))


def test_sequences_are_decoded_one_by_one_where_rows_depend_on_each_other() -> None:
    """As on a machine whose matrix products differ with the number of rows."""
    model = build("gpt", GPT)
    step = model.decode_step

    def depends_on_rows(token_R: torch.Tensor, states: Any) -> Any:
        logits_RV, states = step(token_R, states)
        noise_RV = torch.arange(len(token_R))[:, None] * torch.randn(VOCABULARY)
        return logits_RV + 1e-3 * noise_RV, states

    model.decode_step = depends_on_rows  # type: ignore[method-assign]
    scheduler = BatchScheduler(model, LETTERS, slots=4)
    assert scheduler.min_rows == 0
    model.decode_step = step  # type: ignore[method-assign]
    requests = [GenerationRequest([make_sequence(seed)], LATER) for seed in range(6)]
    found = generate(scheduler, requests)
    plain = BatchScheduler(build("gpt", GPT), LETTERS, slots=4)
    assert [text_of(found[request][0]) for request in requests] == [
        text_of(generate_alone(plain, make_sequence(seed))[0]) for seed in range(6)
    ]


# --- text, finish reasons and log-probabilities ---


def test_finish_reasons() -> None:
    scheduler = BatchScheduler(alphabet_model(), LETTERS, slots=2)
    deltas = generate_alone(scheduler, make_sequence(0, prompt=np.array([1, 2])))[0]  # "ab"
    assert text_of(deltas) == "cdef"
    assert [delta.finish_reason for delta in deltas] == [None] * 4 + ["stop"]
    assert sum(delta.num_tokens for delta in deltas) == 4
    deltas = generate_alone(scheduler, make_sequence(0, prompt=np.array([1]), max_tokens=3))[0]
    assert (text_of(deltas), deltas[-1].finish_reason) == ("bcd", "length")
    assert deltas[-1].text == "d"  # with the last token, not after it
    scored = make_sequence(0, prompt=np.array([1]), max_tokens=0, echo=True)
    deltas = generate_alone(scheduler, scored)[0]
    assert (text_of(deltas), deltas[-1].finish_reason) == ("a", "length")


def test_stop_strings_may_span_tokens_and_are_not_part_of_the_text() -> None:
    scheduler = BatchScheduler(alphabet_model(), LETTERS, slots=2)
    for stop, text in (
        (("de",), "bc"),
        (("b",), ""),
        (("x", "ef"), "bcd"),
        (("cdx", "d"), "bc"),
        (("fa",), "bcdef"),
    ):
        sequence = make_sequence(0, prompt=np.array([1]), stop=stop, logprobs=1)
        deltas = generate_alone(scheduler, sequence)[0]
        assert text_of(deltas) == text
        assert deltas[-1].finish_reason == "stop"
        # A token is released together with its text.
        for delta in deltas:
            assert "".join(token.text for token in delta.tokens if token.id) == delta.text


def test_echo_with_logprobs_scores_the_prompt() -> None:
    scheduler = BatchScheduler(alphabet_model(), LETTERS, slots=2)
    sequence = make_sequence(0, prompt=np.array([1, 2, 5]), echo=True, logprobs=2)
    tokens = tokens_of(generate_alone(scheduler, sequence)[0])
    assert [token.text for token in tokens] == ["a", "b", "e", "f", "<|endoftext|>"]
    assert [token.offset for token in tokens] == [0, 1, 2, 3, 4]
    sure, unlikely = pytest.approx(0, abs=1e-6), pytest.approx(-30, abs=1e-3)
    assert [token.logprob for token in tokens[1:]] == [sure, unlikely, sure, sure]
    assert tokens[2].top[0][1] == "c"  # the most likely token
    without_prefix = replace(sequence, prefix=np.array([], dtype=int))
    first = tokens_of(generate_alone(scheduler, without_prefix)[0])[0]
    assert (first.logprob, first.top) == (None, [])


@pytest.mark.parametrize("name", ["bigram", "mlp", "lstm"])
def test_a_long_prompt_is_scored_in_chunks(name: str) -> None:
    model = build(name, {"context": 400} if name == "lstm" else {})
    scheduler = BatchScheduler(model, LETTERS, slots=2)
    prompt = np.random.default_rng(1).integers(1, VOCABULARY, 300)
    for prefix in ([0], [0, 3, 2]):
        sequence = make_sequence(
            0, prefix=np.array(prefix), prompt=prompt, echo=True, logprobs=2, max_tokens=0
        )
        tokens = tokens_of(generate_alone(scheduler, sequence)[0])
        logits_TV = model(torch.tensor([[*prefix, *prompt]]))[0][0, len(prefix) - 1 : -1]
        logs_T = logits_TV.log_softmax(-1)[torch.arange(300), torch.tensor(prompt)]
        assert [token.id for token in tokens] == prompt.tolist()
        assert [token.logprob for token in tokens] == pytest.approx(logs_T.tolist(), abs=1e-5)
        assert [token.offset for token in tokens] == list(range(300))


def test_a_long_prompt_does_not_delay_others() -> None:
    scheduler = BatchScheduler(build("bigram", {}), LETTERS, slots=4)
    prompt = np.ones(2000, dtype=int)
    scheduler.add(
        GenerationRequest([make_sequence(0, prompt=prompt, echo=True, logprobs=0, n=2)], LATER)
    )
    scheduler.add(short := GenerationRequest([make_sequence(1, max_tokens=1)], LATER))
    ended = []
    while not scheduler.is_idle:
        ended += [request for request, _, delta in scheduler.step() if delta.finish_reason]
    assert ended[0] is short
    assert len(ended) == 3


def test_only_the_context_of_a_long_prompt_is_read() -> None:
    for name in ("bigram", "mlp", "wavenet"):
        model = build(name, {})
        scheduler = BatchScheduler(model, LETTERS, slots=2)
        prompt = np.random.default_rng(1).integers(1, VOCABULARY, 3000)
        sequence = make_sequence(3, prompt=prompt, n=5, echo=True)
        cut, whole = (
            {index: text_of(deltas) for index, deltas in generate_alone(scheduler, each).items()}
            for each in (sequence, replace(sequence, logprobs=0))  # which reads all of it
        )
        assert cut == whole
        assert max(map(len, cut.values())) > 3000
        scheduler.add(GenerationRequest([make_sequence(3, prompt=prompt)], LATER))
        assert len(scheduler.waiting[0].prefill.tokens_T) == model.context


def test_a_character_that_begins_in_the_prompt_is_complete() -> None:
    tokenizer = ByteTokenizer(boundary=False)
    model = build_model(model_config({"name": "bigram"}), 256)
    with torch.no_grad():
        table = model.get_parameter("table.weight")
        table[0x82, 0xAC] = table[0xAC, ord("!")] = 50.0
    scheduler = BatchScheduler(model, tokenizer, slots=2)
    prompt = tokenizer.encode("a €")[:-1]
    sequence = make_sequence(
        0, prompt=prompt, prefix=prompt[:0], max_tokens=2, sampling=Sampling(temperature=0)
    )
    assert text_of(generate_alone(scheduler, sequence)[0]) == "€!"
    echoed = generate_alone(scheduler, replace(sequence, echo=True, logprobs=0))[0]
    assert text_of(echoed) == "a €!"
    assert [token.offset for token in tokens_of(echoed)] == [0, 1, 2, 2, 2, 3]
    only_echoed = generate_alone(scheduler, replace(sequence, echo=True, max_tokens=0))[0]
    assert text_of(only_echoed) == "a "


def test_characters_of_several_bytes_are_complete() -> None:
    """The model generates one fixed text, byte by byte."""
    tokenizer, text = ByteTokenizer(boundary=False), "aé€😀b"
    ids = tokenizer.encode(text).tolist()
    model = build("bigram", {})

    def predict_text(tokens: torch.Tensor, state: Any = None) -> Any:
        at = (0 if state is None else int(state[0])) + tokens.shape[1]
        logits = torch.zeros(1, tokens.shape[1], 256)
        logits[0, -1, ids[min(at, len(ids)) - 1]] = 50.0
        return logits, torch.tensor([at])

    model.forward = predict_text  # type: ignore[method-assign, assignment]
    model.vocab_size = 256
    scheduler = BatchScheduler(model, tokenizer, slots=1)
    for max_tokens in range(1, len(ids) + 1):
        nothing = np.array([], dtype=int)
        deltas = generate_alone(
            scheduler, make_sequence(0, prompt=nothing, max_tokens=max_tokens, logprobs=0)
        )[0]
        assert text_of(deltas) == bytes(ids[:max_tokens]).decode("utf-8", "ignore")
        labels = [token.text for token in tokens_of(deltas)]
        assert len(labels) == max_tokens
        assert labels[:3] == ["a", "bytes:\\xc3", "bytes:\\xa9"][:max_tokens]


@given(
    text=st.text(st.sampled_from("ab€😀"), max_size=12),
    stops=st.lists(st.text(st.sampled_from("ab€"), min_size=1, max_size=3), max_size=3),
    data=st.data(),
)
def test_the_detokenizer_releases_the_text_before_the_first_stop_string(
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
    # The stop string that is complete first ends the text.
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


# --- slots, queue and deadlines ---


def test_slots_limit_the_batch_and_cancelled_sequences_free_them() -> None:
    scheduler = BatchScheduler(never_ending(build("gpt", GPT)), LETTERS, slots=3)
    requests = [
        GenerationRequest([make_sequence(seed, max_tokens=1000, n=2)], LATER) for seed in range(4)
    ]
    for request in requests:
        scheduler.add(request)
    for _ in range(5):
        list(scheduler.step())
        assert len(scheduler.running) == 3
    requests[0].cancelled = True
    requests[2].cancelled = True
    assert requests[0] not in {request for request, _, _ in scheduler.step()}
    assert {text.parent for text in (*scheduler.running, *scheduler.waiting)} == {
        requests[1],
        requests[3],
    }
    requests[1].deadline = time.monotonic() - 1
    list(scheduler.step())
    assert requests[1].is_over
    assert {text.parent for text in scheduler.running} == {requests[3]}


def test_a_long_prompt_is_read_between_decoding_steps() -> None:
    scheduler = BatchScheduler(
        never_ending(build("lstm", {"width": 16, "context": 2000})), LETTERS, slots=3
    )
    short, long = (
        GenerationRequest([make_sequence(0, max_tokens=500)], LATER),
        GenerationRequest([make_sequence(1, prompt=np.ones(1500, int))], LATER),
    )
    scheduler.add(short)
    list(scheduler.step())
    scheduler.add(long)
    steps = 0
    while long not in {text.parent for text in scheduler.running}:
        assert short in {request for request, _, _ in scheduler.step()}
        steps += 1
    assert steps == 12  # 1,501 tokens, 128 at a time


def test_constrained_sequences_are_generated_beside_others() -> None:
    tokenizer, tokens = item_tokens(["abba", "baba", "cab", "dad", "fed", "bed"] * 5)
    model = build("ngram", {"order": 2})
    model.fit_counts(tokens)  # type: ignore[operator]
    scheduler = BatchScheduler(model, tokenizer, slots=4)
    automaton = compile_constraint(Constraint(ends="d", length=(3, 5)), tokenizer, tokens, 20)
    nothing = np.array([], dtype=int)
    constrained = make_sequence(0, prompt=nothing, n=6, automaton=automaton)
    requests = [
        GenerationRequest([constrained], LATER),
        GenerationRequest([make_sequence(1, prompt=nothing, n=6)], LATER),
    ]
    found = generate(scheduler, requests)
    texts = [text_of(found[requests[0]][place]) for place in range(6)]
    assert all(text.endswith("d") and 3 <= len(text) <= 5 for text in texts)
    assert all(found[requests[0]][place][-1].log_weight < 0 for place in range(6))
    assert found[requests[0]] == generate_alone(scheduler, constrained)


@pytest.fixture
def engines() -> Iterator[Any]:
    """Make engines that are stopped at the end of the test."""
    made: list[Engine] = []

    def make(model: Model, tokenizer: Tokenizer = LETTERS, **options: Any) -> Engine:
        made.append(Engine(model, tokenizer, **{"slots": 2, "queue": 4, **options}))
        return made[-1]

    yield make
    for engine in made:
        engine.stop(0)
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


async def read_text(engine: Engine, sequence: SequenceRequest, seconds: float = 60) -> str:
    text = ""
    with closing(engine.submit([sequence], seconds)) as answer:
        async for _, delta in answer:
            text += delta.text
    return text


def test_the_engine_serves_many_requests_at_once(engines: Any) -> None:
    ended = []
    engine = engines(build("gpt", GPT), queue=100, on_finished=ended.append)
    scheduler = BatchScheduler(build("gpt", GPT), LETTERS, slots=2)
    expected = [text_of(generate_alone(scheduler, make_sequence(seed))[0]) for seed in range(30)]

    async def main() -> list[str]:
        return await asyncio.gather(*(read_text(engine, make_sequence(seed)) for seed in range(30)))

    assert asyncio.run(main()) == expected
    assert (engine.num_requests, engine.num_running, engine.num_waiting) == (0, 0, 0)
    assert len(ended) == 30
    assert all(answer.time_to_first_token is not None for answer in ended)
    assert engine.num_generated == sum(map(len, expected))


def test_a_full_queue_estimates_when_to_retry(engines: Any) -> None:
    engine = engines(never_ending(build("gpt", GPT)))

    async def main() -> None:
        answers = [engine.submit([make_sequence(seed, max_tokens=10**6)], 60) for seed in range(6)]
        with pytest.raises(QueueFull) as busy:
            engine.submit([make_sequence(7)], 60)
        assert 1 <= busy.value.retry_after <= 60
        with pytest.raises(QueueFull):
            engine.submit([make_sequence(7, n=7)], 60)
        for answer in answers:
            answer.close()
        assert await read_text(engine, make_sequence(8, max_tokens=3)) != ""

    asyncio.run(main())


def test_closing_a_stream_frees_its_slot_after_the_current_step(engines: Any) -> None:
    engine = engines(never_ending(build("gpt", GPT)))

    async def main() -> None:
        answers = [engine.submit([make_sequence(seed, max_tokens=10**6)], 60) for seed in range(2)]
        async for _ in answers[0]:
            break
        for answer in answers:
            answer.close()
        drawn = engine.num_generated
        async with asyncio.timeout(GENEROUS_DEADLINE_S):
            while engine.num_running or engine.num_waiting:
                await asyncio.sleep(0.001)
        assert engine.num_generated <= drawn + 2 * 2  # the current step and no other

    asyncio.run(main())


def test_deadlines_apply_to_running_and_waiting_requests(engines: Any) -> None:
    engine = engines(never_ending(build("gpt", GPT)))

    async def main() -> None:
        asked = [
            read_text(engine, make_sequence(seed, max_tokens=10**6), seconds=0.3)
            for seed in range(4)
        ]
        async with asyncio.timeout(GENEROUS_DEADLINE_S):
            found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in found] == [DeadlineExceeded] * 4

    asyncio.run(main())


def test_a_failing_step_fails_the_open_requests_and_no_later_ones(
    engines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = build("gpt", GPT)
    engine = engines(model)
    step = model.decode_step

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("out of luck")

    async def main() -> None:
        model.decode_step = broken  # type: ignore[method-assign]
        asked = [read_text(engine, make_sequence(seed)) for seed in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert GenerationFailed in {type(error) for error in found}
        model.decode_step = step  # type: ignore[method-assign]
        assert await read_text(engine, make_sequence(4, max_tokens=3)) != ""

    asyncio.run(main())
    assert "out of luck" in caplog.text


def test_requests_that_do_not_finish_before_the_stop_get_an_error(engines: Any) -> None:
    engine = engines(never_ending(build("gpt", GPT)), queue=10)

    async def main() -> None:
        asked = [
            asyncio.create_task(read_text(engine, make_sequence(s, max_tokens=10**6)))
            for s in range(5)
        ]
        while engine.num_requests < 5:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(engine.stop, 0.1)
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(error) for error in found} == {ShuttingDown}

    asyncio.run(main())


def test_the_first_error_is_raised(engines: Any) -> None:
    """A sequence that is canceled at the shutdown also counts as over its deadline."""
    engine = engines(build("gpt", GPT))

    async def main() -> None:
        with closing(engine.submit([make_sequence(1, max_tokens=10**6)], 60)) as answer:
            answer.put(ShuttingDown())
            answer.put(DeadlineExceeded())
            with pytest.raises(ShuttingDown):
                async for _ in answer:
                    pass

    asyncio.run(main())


def test_stopping_waits_for_open_requests(engines: Any) -> None:
    engine = engines(build("gpt", GPT), queue=10)

    async def main() -> None:
        asked = [asyncio.create_task(read_text(engine, make_sequence(seed))) for seed in range(8)]
        await asyncio.sleep(0)
        await asyncio.to_thread(engine.stop, 30)
        assert len([text for text in await asyncio.gather(*asked) if text]) >= 7
        with pytest.raises(ShuttingDown):
            engine.submit([make_sequence(9)], 60)

    asyncio.run(main())
