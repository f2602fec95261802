from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import Moreish, item_tokens
from moreish import api
from moreish.errors import MoreishError
from moreish.generate.decode import generate
from moreish.generate.sampling import (
    NOISE_BLOCK,
    RepetitionCounter,
    Sampling,
    sample_tokens,
    sampling_probabilities,
    uniform_noise,
)
from moreish.generate.writer import TooFewTexts
from moreish.models import build_model, model_config
from moreish.runs.run import Run
from moreish.training.events import ignore

LOGITS = torch.tensor([[1.0, 3.0, 2.0, -torch.inf], [0.0, 0.0, 0.0, 0.0]])


def shares(**options: float) -> torch.Tensor:
    return sampling_probabilities(LOGITS, Sampling(**options))


def test_temperature_one_is_the_model_itself() -> None:
    torch.testing.assert_close(shares(), LOGITS.double().softmax(-1))


def test_temperature_zero_is_greedy_and_tiny_ones_approach_it() -> None:
    assert shares(temperature=0)[0].tolist() == [0, 1, 0, 0]
    assert shares(temperature=1e-300)[0].tolist() == [0, 1, 0, 0]
    assert shares(temperature=1e300)[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


def test_top_k_keeps_the_most_probable() -> None:
    assert (shares(top_k=2)[0] > 0).tolist() == [False, True, True, False]
    torch.testing.assert_close(shares(top_k=99), shares())


def test_top_p_keeps_the_fewest_that_hold_p() -> None:
    p = shares()[0, 1].item()
    assert (shares(top_p=p - 1e-6)[0] > 0).tolist() == [False, True, False, False]
    assert (shares(top_p=p + 1e-6)[0] > 0).tolist() == [False, True, True, False]
    assert (shares(top_p=1e-9) > 0).sum(-1).tolist() == [1, 1]
    torch.testing.assert_close(shares(top_p=1.0), shares())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_p", 0),
        ("top_p", 1.5),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(MoreishError, match=f"sample.{name}"):
        Sampling.parse({name: value}, "sample")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0, 1, exclude_max=True))
def test_tokens_of_probability_zero_are_never_sampled(weights: list[float], uniform: float) -> None:
    row = torch.tensor([weights], dtype=torch.float64)
    if row.sum() < 1e-9:
        return
    token = sample_tokens(row / row.sum(), torch.tensor([uniform], dtype=torch.float64)).item()
    assert row[0, token] > 0


def test_samples_follow_the_distribution() -> None:
    row = torch.tensor([[0.1, 0.0, 0.6, 0.3]], dtype=torch.float64)
    drawn = sample_tokens(row.expand(100_000, -1), uniform_noise(0, 0, range(100_000))[:, 0])
    frequencies = drawn.bincount(minlength=4) / 100_000
    # Five standard deviations of a frequency over 100,000 draws are under 0.008.
    torch.testing.assert_close(frequencies, row[0].float(), atol=0.008, rtol=0)


@pytest.mark.parametrize("eos_token", [None, 0])
def test_a_stream_does_not_depend_on_its_neighbors(
    small_run: Run, text_run: Run, eos_token: int | None
) -> None:
    """This holds past the context, past a block of random numbers, and after half have ended."""

    def tokens(run: Run, streams: range) -> list[list[int]]:
        steps = generate(
            run.model,
            np.array([0]),
            streams=streams,
            max_tokens=3 * NOISE_BLOCK,
            sampling=Sampling(),
            seed=5,
            eos_token=eos_token,
        )
        drawn, alive = (torch.stack(list(parts), 1) for parts in zip(*steps, strict=True))
        lengths = alive.sum(1).tolist()
        return [row[:length].tolist() for row, length in zip(drawn, lengths, strict=True)]

    for run in (small_run, text_run):
        together = tokens(run, range(40))
        assert tokens(run, range(7, 8))[0] == together[7]
        assert tokens(run, range(30, 40)) == together[30:]
        assert tokens(run, range(4)) == together[:4]


def test_random_numbers_belong_to_streams() -> None:
    many = uniform_noise(3, 1, range(20))
    assert many.shape == (20, NOISE_BLOCK)
    assert torch.equal(uniform_noise(3, 1, range(7, 9)), many[7:9])
    assert not torch.equal(uniform_noise(3, 2, range(20)), many)
    assert not torch.equal(uniform_noise(4, 1, range(20)), many)


def test_generating_leaves_threads_and_model_as_they_were(small_run: Run) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for ends_early in (False, True):
            steps = generate(
                small_run.model,
                np.array([0]),
                streams=range(2),
                max_tokens=5,
                sampling=Sampling(),
                seed=0,
            )
            for _ in steps:
                assert torch.get_num_threads() == 3
                assert not torch.is_inference_mode_enabled()
                if ends_early:
                    break
            steps.close()
            assert not any(set(m._parameters) & set(m.__dict__) for m in small_run.model.modules())
    finally:
        torch.set_num_threads(before)


def test_hooks_are_called_while_sampling(small_run: Run) -> None:
    layer = next(m for m in small_run.model.modules() if isinstance(m, torch.nn.Linear))
    seen: list[int] = []
    hook = layer.register_forward_hook(lambda *_: seen.append(1))
    try:
        small_run.sample(1, max_tokens=3, seed=0)
    finally:
        hook.remove()
    called = len(seen)
    small_run.sample(1, max_tokens=3, seed=0)
    assert len(seen) == called > 0


def test_the_same_seed_gives_the_same_texts(small_run: Run, text_run: Run) -> None:
    for run in (small_run, text_run):
        first = run.sample(5, seed=3)
        assert run.sample(5, seed=3) == first
        assert run.sample(3, seed=3) == first[:3]
        assert run.sample(5, seed=4) != first


def test_texts_begin_with_the_prompt(small_run: Run, text_run: Run) -> None:
    assert all(text.startswith("jo") for text in small_run.sample(8, prompt="jo"))
    text = text_run.sample(1, prompt="The cat", max_tokens=30)[0]
    assert text.startswith("The cat")
    assert len(text) == len("The cat") + 30


def test_a_stream_is_the_first_sample(text_run: Run, small_run: Run) -> None:
    for run in (text_run, small_run):
        pieces = list(run.stream(seed=2, top_k=5, max_tokens=40))
        assert "".join(pieces) == run.sample(1, seed=2, top_k=5, max_tokens=40)[0]
        assert len(pieces) > 2


def test_new_only_and_unique(small_run: Run) -> None:
    data = {
        small_run.tokenizer.decode(split.item(i))
        for split in map(small_run.split, small_run.split_names)
        for i in range(len(split.boundaries) - 1)
    }
    assert len(data) == 400
    greedy = {"temperature": 0.3, "seed": 1}
    assert set(small_run.sample(60, **greedy)) & data
    texts = small_run.sample(60, new_only=True, unique=True, **greedy)
    assert not set(texts) & data
    assert len(set(texts)) == 60


def test_too_few_distinct_texts_are_an_error(small_run: Run) -> None:
    with pytest.raises(MoreishError, match="only 1 of 2 texts found"):
        small_run.sample(2, temperature=0, unique=True)


def test_running_text_is_new_if_the_data_do_not_contain_it(text_run: Run) -> None:
    ids = text_run.split("train").ids_N[40:90].astype(int)
    written = text_run.tokenizer.decode_bytes(ids)
    assert written in text_run.training_index
    assert written[::-1] not in text_run.training_index
    assert all(text not in "x" for text in text_run.sample(2, new_only=True, max_tokens=60))


def test_unknown_characters_in_a_prompt(small_run: Run) -> None:
    with pytest.raises(MoreishError, match=r"vocabulary: 'É' '!'; .*unknown='drop'"):
        small_run.sample(1, prompt="É!a")
    assert small_run.sample(1, prompt="É!a", unknown="drop")[0].startswith("a")


def test_characters_are_never_cut_in_two(tmp_path: Path) -> None:
    source = tmp_path / "s.txt"
    source.write_text("日本語のテキスト。" * 60, encoding="utf-8")
    run = api.train(
        source,
        model="ngram",
        tokenizer="byte",
        kind="text",
        out=tmp_path / "r",
        report=ignore,
        settings={"model": {"order": 6, "add_k": 0}},
    )
    pieces = list(run.stream(prompt="日", max_tokens=60))
    assert "\ufffd" not in "".join(pieces)
    assert set("".join(pieces)) <= set("日本語のテキスト。")


def test_a_certain_model_gives_its_only_text() -> None:
    _, tokens = item_tokens(["abc"])
    model = build_model(model_config({"name": "ngram", "order": 3, "add_k": 0}), 4)
    model.fit_counts(tokens)
    steps = list(
        generate(
            model,
            np.array([0]),
            streams=range(2),
            max_tokens=9,
            sampling=Sampling(),
            seed=0,
            eos_token=0,
        )
    )
    assert [token.tolist() for token, _ in steps] == [[1, 1], [2, 2], [3, 3], [0, 0]]
    assert steps[-1][1].tolist() == [False, False]


def test_min_p_keeps_tokens_that_are_likely_enough() -> None:
    logits_BV = torch.tensor([[0.5, 0.2, 0.1, 0.2]]).log()
    kept = sampling_probabilities(logits_BV, Sampling(min_p=0.3))
    torch.testing.assert_close(kept.float(), torch.tensor([[5 / 9, 2 / 9, 0, 2 / 9]]))
    assert (sampling_probabilities(logits_BV, Sampling(min_p=1.0)) > 0).sum() == 1


def test_penalties_equal_the_formulas() -> None:
    """CTRL's repetition penalty, and OpenAI's frequency and presence penalties."""
    sampling = Sampling(repetition_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25)
    counter = RepetitionCounter(np.array([0]), 4, sampling, streams=2)
    for tokens in ([1, 2], [1, 3]):
        counter.add(torch.tensor(tokens))
    logits = [3.0, 1.0, -1.0, 0.5]
    in_text = [{0, 1}, {0, 2, 3}]
    counts = [{1: 2}, {2: 1, 3: 1}]
    expected = [
        [
            (x / 2 if x > 0 else 2 * x) * (v in in_text[b])
            + x * (v not in in_text[b])
            - 0.5 * counts[b].get(v, 0)
            - 0.25 * (v in counts[b])
            for v, x in enumerate(logits)
        ]
        for b in range(2)
    ]
    got = counter(torch.tensor([logits, logits]))
    torch.testing.assert_close(got, torch.tensor(expected))


def test_repetition_is_rarer_with_a_penalty(small_run: Run) -> None:
    def repeats(penalty: float) -> int:
        texts = small_run.sample(50, repetition_penalty=penalty, seed=1)
        return sum(len(text) - len(set(text)) for text in texts)

    assert repeats(3.0) < repeats(1.0) / 2


def test_a_text_ends_before_a_stop_string(small_run: Run) -> None:
    plain = small_run.sample(30, seed=2, prompt="a")
    stopped = small_run.sample(30, seed=2, prompt="a", stop=["a", "zz", ""])
    assert stopped == ["a" + text[1:].split("a")[0] for text in plain]
    assert any(a != b for a, b in zip(plain, stopped, strict=True))
    streamed = "".join(small_run.stream(prompt="a", seed=2, stop=["a"]))
    assert streamed == stopped[0]


def test_the_best_of_several_texts(small_run: Run) -> None:
    texts = small_run.sample(5, best_of=6, seed=3)
    every = small_run.sample(30, seed=3)
    assert texts == sorted(every, key=small_run.mean_surprisal)[:5]


def test_too_few_texts_are_not_lost(small_run: Run, moreish: Moreish) -> None:
    with pytest.raises(TooFewTexts) as error:
        small_run.sample(3, unique=True, temperature=0.0)
    assert error.value.texts == small_run.sample(1, temperature=0.0)
    result = moreish("sample", small_run.path, "--unique", "--temperature", 0, "-n", 3)
    assert result.status == 0 and result.out.split("\n")[:1] == error.value.texts
    assert "only 1 of 3 texts found" in result.err
