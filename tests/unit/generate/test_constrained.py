"""Constrained sampling: every text matches, and texts follow the model's own distribution."""

import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Moreish
from moreish import api
from moreish.data import catalog
from moreish.errors import MoreishError
from moreish.generate.automaton import Nfa
from moreish.generate.constrained import (
    CompileLimits,
    ConstrainedDecoder,
    Constraint,
    compile_constraint,
    effective_size,
    parse_length,
    resample,
)
from moreish.generate.sampling import Sampling
from moreish.runs.run import Run
from moreish.training.events import ignore


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of the same names: letter pairs, good counts, and bytes."""
    folder = tmp_path_factory.mktemp("constraints")
    source = folder / "names.txt"
    names = catalog.load_dataset("names").split("\n")[:3000]
    source.write_text("\n".join([*names, "zoë", "chloë", "renée"]), encoding="utf-8")

    def train(name: str, **options: object) -> Run:
        return api.train(source, out=folder / name, report=ignore, **options)

    return {
        "pairs": train("pairs", model="ngram"),
        "kneser-ney": train("kneser-ney", model="kneser-ney"),
        "bytes": train("bytes", model="kneser-ney", tokenizer="byte"),
    }


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"ends": "na"}, ".*na"),
        ({"contains": "zz"}, ".*zz.*"),
        ({"regex": "[aeiou].*[^aeiou]"}, "[aeiou].*[^aeiou]"),
        ({"regex": "^(an|be)+$"}, "(an|be)+"),
        ({"length": "4"}, ".{4}"),
        ({"length": "12.."}, ".{12,}"),
        ({"length": "..3"}, ".{0,3}"),
        ({"contains": "ll", "ends": "a", "length": "5..8", "prompt": "k"}, "k(?=.*ll.*).{3,6}a"),
    ],
)
def test_every_text_matches(
    counted: dict[str, Run], small_run: Run, options: dict[str, str], pattern: str
) -> None:
    for run in (counted["kneser-ney"], counted["bytes"], small_run):
        texts = run.sample(12, seed=0, **options)
        assert len(texts) == 12
        assert all(re.fullmatch(pattern, text) for text in texts), texts
        assert run.sample(12, seed=0, **options) == texts
        assert run.sample(12, seed=1, **options) != texts or "(an|be)" in pattern


def accepts(add: Callable[[Nfa], None], text: str) -> bool:
    nfa = Nfa(seconds=60, too_large="too large")
    add(nfa)
    dfa, state = nfa.to_dfa(["", *"abc"]), 0
    for character in text:
        state = dfa.next_SV[state, 1 + "abc".index(character)]
    return bool(dfa.accepts_S[state])


@given(st.text("ab", min_size=1, max_size=6), st.text("abc", max_size=12))
def test_automata_of_literals(literal: str, text: str) -> None:
    ends = accepts(lambda nfa: nfa.add_literal(literal, anywhere=False), text)
    contains = accepts(lambda nfa: nfa.add_literal(literal, anywhere=True), text)
    assert (ends, contains) == (text.endswith(literal), literal in text)


REGEX = st.recursive(
    st.sampled_from(["a", "b", "c", ".", "[ab]", "[^a]"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0}", "{1,3}", "{2,}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=8,
)


@given(REGEX, st.text("abc", max_size=8))
def test_automata_of_regular_expressions_match_what_python_matches(regex: str, text: str) -> None:
    parse = pytest.importorskip("greenery").parse
    expected = re.fullmatch(regex, text) is not None
    assert accepts(lambda nfa: nfa.add_regex(parse(regex)), text) == expected


def test_building_an_automaton_stops_at_the_deadline(small_run: Run) -> None:
    for constraint in (Constraint(regex="(an|be)+"), Constraint(contains="an" * 100)):
        options = {"prompt": "", "sampling": Sampling(), "limits": CompileLimits(seconds=0)}
        with pytest.raises(MoreishError, match="use a simpler constraint"):
            small_run.text_generator(constraint=constraint, **options)


def test_characters_of_several_bytes(counted: dict[str, Run]) -> None:
    for name in ("kneser-ney", "bytes"):
        assert all(text.endswith("ë") for text in counted[name].sample(5, ends="ë"))
    with pytest.raises(MoreishError, match="only ASCII patterns"):
        counted["bytes"].sample(1, regex=".*ë")


def test_special_characters_are_literal_except_in_a_regex(tmp_path: Path) -> None:
    source = tmp_path / "l.txt"
    source.write_text("\n".join(f"a.b*{i}(c)" for i in range(40)) + "\n" + "axb\n" * 5)
    run = api.train(source, model="kneser-ney", kind="lines", out=tmp_path / "r", report=ignore)
    assert all("b*" in text for text in run.sample(5, contains="b*"))
    assert all(text.endswith("(c)") for text in run.sample(5, ends="(c)"))


def test_the_reach_probability_is_exact_for_letter_pairs(counted: dict[str, Run]) -> None:
    """The reach probability is computed from letter pairs. For a model of pairs, every text
    therefore has the same weight, which is the probability of the constraint."""
    run, constraint = counted["pairs"], Constraint(contains="ee")
    generator = run.text_generator(prompt="", sampling=Sampling(), constraint=constraint)
    weights = np.array([text.log_weight for text in generator.weighted_texts(range(200))])
    assert weights.std() < 0.02
    plain = run.sample(4000, seed=0)
    assert np.exp(weights.mean()) == pytest.approx(
        np.mean(["ee" in text for text in plain]), abs=0.015
    )


def test_texts_follow_the_models_own_distribution_of_matches(counted: dict[str, Run]) -> None:
    """The reference is rejection sampling, which is slow and exact."""
    run = counted["kneser-ney"]
    reference = [text for text in run.sample(20_000, seed=0) if text.endswith("an")]
    found = [text for seed in range(4) for text in run.sample(100, ends="an", seed=seed)]

    def shares(texts: list[str]) -> Counter[str]:
        return Counter(text[0] for text in texts)

    for letter, count in shares(reference).most_common(6):
        expected = count / len(reference)
        error = 4 * np.sqrt(expected * (1 - expected) * (1 / len(reference) + 1 / len(found)))
        assert shares(found)[letter] / len(found) == pytest.approx(expected, abs=error)
    lengths = [np.mean([len(text) for text in texts]) for texts in (reference, found)]
    assert lengths[0] == pytest.approx(lengths[1], abs=0.7)  # their standard deviation is 3


def test_impossible_requests_are_refused(counted: dict[str, Run], text_run: Run) -> None:
    run = counted["kneser-ney"]
    for options, message in (
        ({"regex": "a{5}", "length": "3"}, "matches regex='a{5}' length='3..3'"),
        ({"prompt": "bx", "regex": "a.*"}, "the model cannot generate any text that matches"),
        ({"contains": "Q"}, "contains='Q': not in the model's vocabulary: 'Q'"),
        ({"regex": "a(b"}, "invalid pattern"),
        ({"regex": "["}, "invalid pattern (it ends too early, e.g. in a bracket that is not"),
        ({"length": "x"}, "write 5, 3..7"),
        ({"length": "7..3"}, "the minimum is above the maximum"),
        ({"length": "..0"}, "write MINIMUM..MAXIMUM"),
        ({"rank": "beauty"}, "known: likelihood, novelty"),
        ({"max_overlap": 0}, "at least 1"),
    ):
        with pytest.raises(MoreishError) as error:
            run.sample(2, **options)
        assert message in str(error.value)
    with pytest.raises(MoreishError, match="is for lists"):
        text_run.sample(1, ends="a")


def test_lengths() -> None:
    assert parse_length("5") == (5, 5)
    assert parse_length("3..7") == (3, 7)
    assert parse_length("3..") == (3, None)
    assert parse_length("..7") == (0, 7)


def test_a_length_has_the_tokens_that_it_needs(small_run: Run) -> None:
    # By default texts have at most four times the length of the longest item.
    far = 5 * (small_run.record.data.longest_item or 0)
    for prompt in ("", "ab"):
        (text,) = small_run.sample(1, length=f"{far}..{far}", prompt=prompt)
        assert len(text) == far and text.startswith(prompt)
        needed = far + 1 - len(prompt)  # the last one is the end
        small_run.sample(1, length=f"{far}", prompt=prompt, max_tokens=needed)
        with pytest.raises(MoreishError, match=f"takes max_tokens={needed} or more"):
            small_run.sample(1, length=f"{far}", prompt=prompt, max_tokens=needed - 1)


def test_resampling_follows_the_weights() -> None:
    counts = Counter(place for seed in range(3000) for place in resample([0.0, 1.0, 2.0], 1, seed))
    expected = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    for place, share in enumerate(expected):
        assert counts[place] / 3000 == pytest.approx(share, abs=0.03)


def test_a_prompt_that_cannot_match_is_refused_before_sampling(counted: dict[str, Run]) -> None:
    run = counted["kneser-ney"]
    automaton = compile_constraint(
        Constraint(regex="ab"), run.tokenizer, run.split("train"), max_tokens=5
    )
    with pytest.raises(MoreishError, match="cannot generate any text"):
        ConstrainedDecoder(automaton, run.tokenizer.encode("b"), 1, Sampling())


def test_the_command_line(moreish: Moreish, counted: dict[str, Run]) -> None:
    path = counted["kneser-ney"].path
    result = moreish("sample", path, "--starts", "ma", "--ends", "a", "--length", "5..7", "-n", 4)
    lines = result.out.splitlines()
    assert len(lines) == 4
    assert all(re.fullmatch("ma.{2,4}a", line) for line in lines)
    likely = moreish("sample", path, "--rank", "likelihood", "-n", 20, "--json").json["samples"]
    run = counted["kneser-ney"]
    costs = [np.mean([t.nats for t in run.surprisal(text)]) for text in likely]
    assert costs == sorted(costs)
    novel = moreish("sample", path, "--rank", "novelty", "-n", 20, "--json").json["samples"]
    assert set(novel) == set(likely)
    assert moreish("sample", path, "--starts", "a", "--prompt", "b").status == 2


@pytest.mark.parametrize(
    "sampling", [{"top_k": 1}, {"top_p": 0.1}, {"temperature": 0.0}, {"top_k": 3, "top_p": 0.5}]
)
def test_truncated_sampling_still_matches(small_run: Run, sampling: dict[str, float]) -> None:
    for text in small_run.sample(8, contains="qx", length="..9", **sampling):
        assert "qx" in text
        assert len(text) <= 9


def test_top_k_is_unchanged_by_a_constraint_that_always_matches(small_run: Run) -> None:
    """Top-k of one gives the greedy text, whatever the seed."""
    (greedy,) = small_run.sample(1, top_k=1)
    assert set(small_run.sample(5, top_k=1, regex=".*")) == {greedy}


def test_anchors_are_allowed_only_at_the_ends(small_run: Run) -> None:
    assert all(text.startswith("a") for text in small_run.sample(5, regex="^a.*$"))
    for regex in ("^a.*|^b.*", "^anna$|^emma$"):
        with pytest.raises(MoreishError, match="leave out"):
            small_run.sample(1, regex=regex)


def test_anchors_in_classes_and_escapes_are_characters(tmp_path: Path) -> None:
    source = tmp_path / "signs.txt"
    source.write_text("a$b\n^ab\nab$\nba^\n" * 20, encoding="utf-8")
    run = api.train(source, model="ngram", kind="lines", out=tmp_path / "r", report=ignore)
    for regex, allowed in (("[ab$]+", "ab$"), (r"a\$.*", "ab$^"), (r"[ab^]+", "ab^")):
        texts = run.sample(5, regex=regex)
        assert all(set(text) <= set(allowed) for text in texts)
    assert all(text.startswith("a$") for text in run.sample(5, regex=r"a\$.*"))


@pytest.mark.parametrize("regex", [".*a.{16}", "(.*a.{9}|.*b.{9}).{8}"])
def test_patterns_with_too_many_states_are_refused(regex: str, small_run: Run) -> None:
    with pytest.raises(MoreishError, match="too many states"):
        small_run.sample(1, regex=regex)


def test_automata_larger_than_memory_are_refused(small_run: Run) -> None:
    with pytest.raises(MoreishError, match=r"needs .* GB"):
        small_run.sample(1, ends="a" * 30, max_tokens=200_000)


def test_empty_texts_rank_last(small_run: Run) -> None:
    found = small_run.sample(20, regex="a?", rank="likelihood")
    assert set(found) == {"a", ""}
    assert found == sorted(found, reverse=True)


def test_a_recurring_item_keeps_its_share_where_few_items_match(tmp_path: Path) -> None:
    """Letter pairs, which guide the sampling, know nothing of a title that recurs."""
    dishes = ("soup", "stew", "tart", "roast", "salad", "cake", "curry")
    titles = [f"{first} {dish}" for first in ("Tomato", "Leek", "Onion", "Plum") for dish in dishes]
    items = [title for rank, title in enumerate(titles) for _ in range(60 // (rank + 1) + 1)]
    items += ["Tomato brûlée"] * 4 + ["Plum pie"]
    run = api.train(items, model="kneser-ney", out=tmp_path / "r", report=ignore)
    accepted = [text for text in run.sample(20_000, seed=1) if text.endswith("e")]
    assert 150 < len(accepted) < 4_000
    constrained = run.sample(1_000, ends="e", seed=2)
    for title in ("Tomato brûlée", "Tomato cake", "Leek cake", "Plum pie"):
        share, other = accepted.count(title) / len(accepted), constrained.count(title) / 1_000
        error = math.hypot(0.5 / math.sqrt(len(accepted)), 0.5 / math.sqrt(300))
        assert abs(share - other) < 3 * error, (title, share, other)


def test_systematic_resampling() -> None:
    weights = [math.log(share) for share in (0.5, 0.3, 0.2)]
    assert Counter(resample(weights, 10, 0)) == {0: 5, 1: 3, 2: 2}
    assert sorted(resample(weights, 3, 0, distinct=True)) == [0, 1, 2]
    assert effective_size([0.0, 0.0, -1000.0]) == pytest.approx(2)
