"""Examples: formats of files, splits by input, token streams with masked inputs, problems."""

import json
import re
from collections import Counter
from itertools import chain
from pathlib import Path
from random import Random

import pytest

from moreish.data import CATALOG, ExampleCorpus, ExampleFormat, encode_examples, read_examples
from moreish.data.examples import guess_target_form, looks_like_examples, split_examples
from moreish.data.examples.problems import held_out_problems, side_of, training_problem
from moreish.data.token_dataset import IGNORE_INDEX
from moreish.errors import MoreishError
from moreish.tasks import Example, build_task, register, task_config
from moreish.tokenizers import CharTokenizer, ExampleTokenizer

COLORS = [Example(f"thing {n}", ("red", "green")[n % 3 == 0]) for n in range(40)]
LOANS = [Example("a", "b"), Example("ccc", "dd"), Example("", "e")]


def tokenizer_of(corpus: ExampleCorpus) -> ExampleTokenizer:
    text = CharTokenizer.build(corpus.texts_of(corpus.examples), boundary=True)
    return ExampleTokenizer(text, corpus.form, corpus.symbols)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", 'french\tenglish\nun chat\ta cat\nun "chien"\ta dog\n'),
        ("a.csv", 'french,english\nun chat,a cat\n"un ""chien""",a dog\n'),
        ("a.csv", 'id;french;english\n1;un chat;a cat\n2;un "chien";a dog\n'),
        (
            "a.jsonl",
            '{"french": "un chat", "english": "a cat"}\n'  # noqa: ISC004
            '{"french": "un \\"chien\\"", "english": "a dog"}\n',
        ),
    ],
)
def test_columns_are_chosen_by_name(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    file_format = ExampleFormat(input="french", target="english")
    found = read_examples([str(tmp_path / name)], file_format).examples
    assert list(found) == [("un chat", "a cat"), ('un "chien"', "a dog")]


TRL = {
    "prompt-completion": [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(4)],
    "conversational": [
        {
            "prompt": [{"role": "user", "content": f"p{n}"}],
            "completion": [{"role": "assistant", "content": f"c{n}"}],
        }
        for n in range(4)
    ],
    "messages": [
        {
            "messages": [
                {"role": "user", "content": f"p{n}"},
                {"role": "assistant", "content": f"c{n}"},
            ]
        }
        for n in range(4)
    ],
}


@pytest.mark.parametrize("rows", TRL.values(), ids=TRL)
def test_formats_of_trl_are_recognized(rows: list[dict], tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert looks_like_examples(str(path))
    found = read_examples([str(path)], ExampleFormat()).examples
    assert list(found) == [(f"p{n}", f"c{n}") for n in range(4)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "\n".join([json.dumps({"text": "x" * 9000, "label": "good"})] * 30)),
        ("a.jsonl", json.dumps({"prompt": "x" * 200_000, "completion": "y"}) + "\n" * 2),
        ("a.json", json.dumps([{"prompt": "x" * 3000, "completion": "y"}] * 50)),
        ("a.json", json.dumps([{"text": "x", "label": "y"}] * 3, indent=2)),
    ],
)
def test_long_lines_and_arrays_are_recognized(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert looks_like_examples(str(tmp_path / name))


def test_content_may_have_parts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]
    row = {"prompt": [{"role": "user", "content": parts}], "completion": [{"text": "Hello"}]}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    assert read_examples([str(path)], ExampleFormat()).examples == [Example("Hi\nthere", "Hello")]


def test_inputs_of_one_text_in_lower_case_are_in_one_split() -> None:
    words = [f"word{n}" for n in range(100)]
    examples = [Example(form, "x") for word in words for form in (word, word.upper())]
    corpus = ExampleCorpus(name="x", examples=examples).with_lower_case()
    parts = corpus.split("seeded", 0).values()
    assert sum(len({example.input for example in part}) for part in parts) == 100


def test_some_inputs_are_chosen_with_all_of_their_targets() -> None:
    examples = [Example(f"{n:02}", target) for n in range(40) for target in "ab"[: 1 + n % 2]]
    corpus = ExampleCorpus(
        name="x", examples=examples, target_form="text", sizes_of_split=(len(examples),)
    )
    tokenizer = tokenizer_of(corpus)
    tokens = encode_examples(corpus, tokenizer, "seeded", 0)["train"]
    assert split_examples(tokens, tokenizer) == examples
    chosen = split_examples(tokens, tokenizer, 4)
    assert {example.input for example in chosen} == {"00", "13", "26", "39"}
    assert len(chosen) == 6


def test_ordinary_tables_are_not_examples(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("title,text\nx,hello\ny,world\n")
    (tmp_path / "a.txt").write_text("prompt,completion\n")
    assert not looks_like_examples(str(tmp_path / "a.csv"))
    assert not looks_like_examples(str(tmp_path / "a.txt"))
    assert not looks_like_examples(str(tmp_path / "absent.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n", "no example has a target"),
        ("a,b,c\nx,y,z\nx,y,z\n", "choose two with --input"),
        ("", "empty"),
    ],
)
def test_errors_name_the_file_and_what_to_do(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(content)
    with pytest.raises(MoreishError, match=message) as error:
        read_examples([str(path)], ExampleFormat())
    assert str(path) in str(error.value)


def test_an_absent_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,label\na,b\n")
    with pytest.raises(MoreishError, match=r"no column 'tekst' \(--input\): its columns are text"):
        read_examples([str(path)], ExampleFormat(input="tekst", target="label"))


def test_examples_without_a_target_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": f"p{n}", "completion": "" if n else "c"} for n in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)))
    corpus = read_examples([str(path)], ExampleFormat())
    assert list(corpus.examples) == [("p0", "c")]
    assert "left out 2 examples without a target" in corpus.notes


@pytest.mark.parametrize(
    ("targets", "form"),
    [
        (["yes", "no"] * 10, "label"),
        ([f"label {n % 50}" for n in range(400)], "label"),
        ([str(n) for n in range(400)], "text"),
        ([" ".join(Random(n).choices("ABCDEFG", k=5)) for n in range(400)], "words"),
    ],
)
def test_the_form_of_targets_is_guessed(targets: list[str], form: str) -> None:
    assert guess_target_form(targets) == form


def test_equal_inputs_are_in_one_split() -> None:
    examples = [Example(str(n % 50), str(n)) for n in range(300)]
    corpus = ExampleCorpus(name="x", examples=examples, target_form="text")
    parts = corpus.split("seeded", 1)
    sides = [{example.input for example in part} for part in parts.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 50
    assert sorted(chain(*parts.values())) == sorted(examples)


def test_only_targets_and_their_ends_are_predicted() -> None:
    corpus = ExampleCorpus(name="x", examples=LOANS, target_form="text", sizes_of_split=(3,))
    tokenizer = tokenizer_of(corpus)
    (tokens,) = encode_examples(corpus, tokenizer, "seeded", 0).values()
    batch = tokens.gather(tokens.windows(100))
    for row, (source, target) in enumerate(LOANS):
        scored = batch.targets_BT[row] != IGNORE_INDEX
        ids = batch.targets_BT[row][scored].tolist()
        assert ids == [*tokenizer.encode_target(target), tokenizer.boundary_id]
        assert batch.tokens_BT[row][scored][0] == tokenizer.separator_id
        assert int(scored.int().argmax()) == len(source) + 1
    assert tokens.num_targets == sum(len(target) + 1 for _, target in LOANS)
    assert split_examples(tokens, tokenizer) == LOANS


def test_labels_have_no_end() -> None:
    corpus = ExampleCorpus(name="x", examples=COLORS)
    tokenizer = tokenizer_of(corpus)
    assert tokenizer.form == "label" and tokenizer.num_outputs == 3
    tokens = encode_examples(corpus, tokenizer, "seeded", 0)["train"]
    batch = tokens.gather(tokens.windows(100))
    assert ((batch.targets_BT != IGNORE_INDEX).sum(1) == 1).all()
    assert batch.targets_BT.max() < tokenizer.num_outputs


@pytest.mark.parametrize("max_length", [5, 6, 9])
def test_long_inputs_lose_their_beginning_and_targets_nothing(max_length: int) -> None:
    examples = [Example("abcdefghijklmnop"[-4 * n :], "x" * n) for n in range(1, 4)]
    corpus = ExampleCorpus(name="x", examples=examples, target_form="text", sizes_of_split=(3,))
    tokenizer = tokenizer_of(corpus)
    (tokens,) = encode_examples(corpus, tokenizer, "seeded", 0).values()
    windows = tokens.windows(max_length)
    assert int(windows.length_W.max()) <= max_length
    batch = tokens.gather(windows)
    scored = [int(row.sum()) for row in batch.targets_BT != IGNORE_INDEX]
    assert scored == [2, 3, 4]
    for row, length, (source, _) in zip(
        batch.tokens_BT, windows.length_W - scored, examples, strict=True
    ):
        assert row[int(length)] == tokenizer.separator_id
        whole = [tokenizer.boundary_id, *tokenizer.encode(source).tolist()]
        assert row[: int(length)].tolist() == whole[len(whole) - int(length) :]


def test_problems_are_a_function_of_seed_and_number() -> None:
    task = build_task(task_config("addition", {}))
    first = [training_problem(task, 3, n) for n in range(50)]
    assert first == [training_problem(task, 3, n) for n in range(50)]
    assert first != [training_problem(task, 4, n) for n in range(50)]


def test_no_problem_is_in_two_splits() -> None:
    task = build_task(task_config("addition", {"digits": 2}))
    training = {task.decode_input(training_problem(task, 0, n).input) for n in range(5000)}
    assert {side_of(each) for each in training} == {"train"}
    val = [task.decode_input(e.input) for e in held_out_problems(task, "val", 10_000)]
    assert len(val) == len(set(val)) > 900
    assert {side_of(each) for each in val} == {"val"}


@pytest.mark.parametrize(
    "settings",
    [{}, {"reverse": False}, {"pad": False}, {"digits": 12}, {"reverse_numbers": True}],
)
def test_addition_is_written_and_read(settings: dict) -> None:
    task = build_task(task_config("addition", settings))
    for seed in range(100):
        problem = task.problem(Random(seed))
        a, b = map(int, problem.input.split("+"))
        assert problem.target == str(a + b)
        encoded = task.encode(problem)
        assert task.decode_target(encoded.target) == problem.target
        assert task.decode_input(encoded.input) == problem.input
    if settings == {"reverse_numbers": True}:
        assert task.encode(Example("12+9", "21")) == ("21+90", "120")
    if settings == {}:
        assert task.encode(Example("12+9", "21")) == ("012+009", "1200")


def test_all_lengths_of_numbers_occur() -> None:
    task = build_task(task_config("addition", {"digits": 5}))
    problems = [task.problem(Random(seed)).input.split("+") for seed in range(2000)]
    lengths = Counter(len(number) for pair in problems for number in pair)
    assert set(lengths) == {1, 2, 3, 4, 5} and min(lengths.values()) > 100


def test_an_input_that_is_no_problem_is_refused() -> None:
    task = build_task(task_config("addition", {}))
    for text in ("", "1+", "1-1", "a+b", "1+2+3", "1.5+2"):
        with pytest.raises(MoreishError, match="write two whole numbers"):
            task.encode_input(text)
    assert task.encode_input(" 1 + 2 = ") == "001+002"


def test_tasks_of_users() -> None:
    @register("double")
    def double(random: Random) -> tuple[str, str]:
        number = random.randrange(1000)
        return str(number), str(2 * number)

    task = build_task(task_config("double", {"held_out": 50}))
    assert all(int(e.target) == 2 * int(e.input) for e in held_out_problems(task, "val", 50))
    with pytest.raises(MoreishError, match=r"unknown task 'task:dubble': did you mean 'double'\?"):
        task_config("dubble", {})
    with pytest.raises(MoreishError, match=r"unknown setting task\.digits"):
        task_config("double", {"digits": 3})


@pytest.mark.parametrize("settings", [{}, {"trace": False}, {"digits": 5}, {"operations": "*"}])
def test_the_calculator_is_written_and_read(settings: dict) -> None:
    task = build_task(task_config("calculator", settings))
    for seed in range(300):
        problem = task.problem(Random(seed))
        a, operation, b = re.fullmatch(r"(\d+)([+*/-])(\d+)", problem.input).groups()  # type: ignore[union-attr]
        expected = {
            "+": lambda a, b: str(a + b),
            "-": lambda a, b: str(a - b),
            "*": lambda a, b: str(a * b),
            "/": lambda a, b: f"{a // b} r {a % b}" if a % b else str(a // b),
        }[operation](int(a), int(b))
        assert problem.target == expected
        encoded = task.encode(problem)
        assert task.decode_target(encoded.target) == problem.target
        assert task.decode_input(encoded.input) == problem.input
    assert task.encode_input("12 × 3") == task.encode_input("12*3")
    with pytest.raises(MoreishError, match="a divisor other than 0"):
        task.encode_input("12/0")


def test_the_steps_of_a_product_lead_to_it() -> None:
    task = build_task(task_config("calculator", {}))
    encoded = task.encode(Example("12*34", "408"))
    assert encoded == ("012*034", "8400,8400;6300,80400;0000,804000=804000")


def test_lines_of_the_pronouncing_dictionary_are_examples() -> None:
    raw = b"aalen AA1 L AH0 N # place, danish\naalen(2) AH1 L AH0 N\naalen(3) AA0 L AH0 N\n"
    assert CATALOG["cmudict"].to_text(raw).split("\n") == ["aalen\tAA L AH N", "aalen\tAH L AH N"]
