"""Prediction of targets: greedy and beam search against exhaustive search."""

import itertools
import math

import numpy as np
import pytest
import torch

from moreish.generate.predict import Search, predict_targets
from moreish.models import build_model, model_config

END, SEPARATOR, VOCABULARY = 0, 5, 6
INPUTS = [np.array([0, *ids, SEPARATOR]) for ids in ([1, 2], [3], [2, 2], [], [4, 1, 3])]
LENGTH = 3
IS_TARGET = np.array([False, True, True, True, False, False])


@pytest.fixture(params=["gpt", "lstm", "encoder-decoder"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(1)
    sizes = {"width": 16, "context": 12} | ({"heads": 2} if request.param != "lstm" else {})
    made = build_model(model_config({"name": request.param, **sizes}), VOCABULARY).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return made


@torch.inference_mode()
def log_probability(model: torch.nn.Module, ids: np.ndarray, target: tuple[int, ...]) -> float:
    """That of a target, among the tokens that can occur in targets."""
    allowed = torch.from_numpy(IS_TARGET.copy())
    allowed[END] = True
    tokens = torch.from_numpy(np.concatenate([ids, target]).astype(np.int64))[None]
    logits = model(tokens[:, :])[0][0].double().masked_fill(~allowed, -torch.inf)
    scores = logits.log_softmax(-1)[len(ids) - 1 :]
    return sum(float(row[t]) for row, t in zip(scores, [*target, END], strict=True))


def predict(model: torch.nn.Module, **options: object) -> dict[int, list]:
    return dict(
        predict_targets(
            model,
            INPUTS,
            is_target_V=IS_TARGET,
            eos_token=END,
            max_tokens=LENGTH + 1,
            search=Search(**options),
        )
    )


ALL = [t for n in range(LENGTH + 1) for t in itertools.product([1, 2, 3], repeat=n)]


def test_a_wide_beam_finds_the_best_target(model: torch.nn.Module) -> None:
    found = predict(model, beams=40, length_penalty=0.0)
    for number, ids in enumerate(INPUTS):
        best = max(ALL, key=lambda target: log_probability(model, ids, target))
        hypothesis = found[number][0]
        assert tuple(hypothesis.ids) == best
        expected = log_probability(model, ids, best)
        assert math.isclose(hypothesis.log_probability, expected, abs_tol=1e-4)


def test_greedy_search_takes_the_most_likely_token(model: torch.nn.Module) -> None:
    found = predict(model)
    allowed = torch.from_numpy(IS_TARGET.copy())
    allowed[END] = True
    for number, ids in enumerate(INPUTS):
        tokens, target = torch.from_numpy(ids)[None], []
        while len(target) <= LENGTH:
            with torch.inference_mode():
                logits = model(tokens)[0][0, -1].masked_fill(~allowed, -torch.inf)
            token = int(logits.argmax())
            if token == END:
                break
            target.append(token)
            tokens = torch.cat([tokens, torch.tensor([[token]])], dim=1)
        assert found[number][0].ids.tolist() == target


def test_probabilities_are_those_of_the_model(model: torch.nn.Module) -> None:
    for beams in (1, 4):
        for number, hypotheses in predict(model, beams=beams).items():
            for each in hypotheses:
                if len(each.ids) <= LENGTH:
                    expected = log_probability(model, INPUTS[number], tuple(each.ids))
                    assert math.isclose(each.log_probability, expected, abs_tol=1e-4)


def test_an_input_does_not_depend_on_others(model: torch.nn.Module) -> None:
    together = predict(model, beams=3)
    for number, ids in enumerate(INPUTS):
        ((_, alone),) = predict_targets(
            model,
            [ids],
            is_target_V=IS_TARGET,
            eos_token=END,
            max_tokens=LENGTH + 1,
            search=Search(beams=3),
        )
        assert [h.ids.tolist() for h in alone] == [h.ids.tolist() for h in together[number]]


def test_sampling_follows_the_probabilities(model: torch.nn.Module) -> None:
    counts: dict[tuple[int, ...], int] = {}
    draws = 300
    for seed in range(draws):
        target = tuple(predict(model, temperature=1.0, seed=seed)[0][0].ids.tolist())
        counts[target] = counts.get(target, 0) + 1
    likely = max(ALL, key=lambda target: log_probability(model, INPUTS[0], target))
    share = math.exp(log_probability(model, INPUTS[0], likely))
    error = math.sqrt(share * (1 - share) / draws)
    assert abs(counts.get(likely, 0) / draws - share) < 4 * error + 0.01
