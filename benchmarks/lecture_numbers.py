"""Writes a page of the numbers that the lectures state, with ours and how to reproduce them.

    python benchmarks/lecture_numbers.py [--out docs/lecture-numbers.md]

Small numbers are computed here in a few seconds. Losses of trained models come from the ladders in
benchmarks/results, which `make ladders` trains again.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from moreish import api, tokenizers
from moreish.data import catalog
from moreish.data.encode import encode_corpus
from moreish.data.text.corpus import Corpus
from moreish.data.token_dataset import TokenDataset
from moreish.evaluate.metrics import evaluate_losses
from moreish.models import CountBasedModel, Model, build_model, model_config
from moreish.models.bow import causal_average
from moreish.models.ngram.add_k import NGram
from moreish.runs import Run
from moreish.tokenizers.char import CharTokenizer
from moreish.training.events import ignore
from moreish.workflows.ladder import RUNGS

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Line:
    """A number that a lecture states, ours, and how to reproduce it."""

    what: str
    stated: str
    ours: str
    how: str = "`python benchmarks/lecture_numbers.py`"


def data(
    name: str, kind: str
) -> tuple[list[str], CharTokenizer, dict[str, TokenDataset], TokenDataset]:
    """Return the documents, the tokenizer, the lecture's splits, and all tokens in order."""
    text = catalog.load_dataset(name)
    documents = text.split("\n") if kind == "lines" else [text]
    tokenizer = CharTokenizer.build(documents, boundary=kind == "lines")
    corpus = Corpus.of(documents, kind)
    splits = encode_corpus(corpus, tokenizer, "lecture", 42)
    pieces = [[0]] if kind == "lines" else []
    for document in documents:
        pieces += [tokenizer.encode(document).tolist(), [0]] if kind == "lines" else []
    ids = np.concatenate(pieces) if pieces else tokenizer.encode(text)
    return documents, tokenizer, splits, TokenDataset(ids.astype(np.uint8), items=kind == "lines")


def build(name: str, vocab_size: int, **settings: object) -> Model:
    return build_model(model_config({"name": name, **settings}), vocab_size)


def fit_counts(
    tokens: TokenDataset, vocab_size: int, name: str = "ngram", **settings: object
) -> Model:
    model = build(name, vocab_size, **settings)
    assert isinstance(model, CountBasedModel)
    model.fit_counts(tokens)
    return model


def mean_loss(model: Model, tokens: TokenDataset) -> str:
    return f"{evaluate_losses(model, tokens).mean(dtype=float):.4f}"


def gradient_bigram(tokens: TokenDataset, strength: float) -> Model:
    """makemore 1: 200 steps of full-batch gradient descent with learning rate 50."""
    model = build("bigram", 27)
    (weight,) = model.parameters()
    pairs, counts = np.unique(
        tokens.ids_N[:-1].astype(int) * 27 + tokens.ids_N[1:], return_counts=True
    )
    before, after = torch.from_numpy(pairs // 27), torch.from_numpy(pairs % 27)
    share = torch.from_numpy(counts / counts.sum()).float()
    for _ in range(200):
        logits = model(before[:, None])[0][:, 0]
        costs = cross_entropy(logits, after, reduction="none")
        loss = (share * costs).sum() + strength * weight.square().mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight -= 50 * gradient
    return model.requires_grad_(False)


def same_draws(a: torch.Tensor, b: torch.Tensor) -> int:
    """Count equal letters among a thousand sampled from two tables with the same random numbers."""
    uniform = np.random.default_rng(2147483647).random(1000)
    at, same = 0, 0
    for u in uniform:
        first, second = (
            int(np.searchsorted(t[at].double().cumsum(0), u * 0.999999)) for t in (a, b)
        )
        same += first == second
        at = first
    return same


def neural_bigram_on_emma(seed: int) -> list[float]:
    """makemore 1: the loss before each of three steps at rate 0.1 on the bigrams of `emma`."""
    ids = torch.tensor([0, 5, 13, 13, 1, 0])
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(27, 27, generator=generator, requires_grad=True)
    losses = []
    for _ in range(3):
        loss = cross_entropy(weight[ids[:-1]], ids[1:])
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, weight)
        weight.data -= 0.1 * gradient
    return losses


def overfit_32_examples(words: list[str]) -> tuple[float, float, int]:
    """makemore 2: the MLP of 3,481 parameters on the examples of the first five words.

    Returns:
        the loss with the lecture's first weights, the loss after 1,000 steps at rate 0.1, and how
        many of the 32 most probable characters are wrong then.
    """
    contexts, targets = [], []
    for word in words:
        context = [0, 0, 0]
        for token in [*(ord(c) - 96 for c in word), 0]:
            contexts.append(context)
            targets.append(token)
            context = [*context[1:], token]
    x, y = torch.tensor(contexts), torch.tensor(targets)
    generator = torch.Generator().manual_seed(2147483647)
    shapes = ((27, 2), (6, 100), (100,), (100, 27), (27,))
    parameters = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    first = loss = torch.tensor(0.0)
    logits = torch.tensor(0.0)
    for step in range(1000):
        embedding, w1, b1, w2, b2 = parameters
        logits = torch.tanh(embedding[x].view(-1, 6) @ w1 + b1) @ w2 + b2
        loss = cross_entropy(logits, y)
        first = loss if step == 0 else first
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.data -= 0.1 * gradient
    return first.item(), loss.item(), int((logits.argmax(1) != y).sum())


def untrained_bigram(train_ids_N: torch.Tensor) -> float:
    """GPT lecture: the loss of the new bigram model on the first batch of 4 windows of 8."""
    torch.manual_seed(1337)
    starts = torch.randint(len(train_ids_N) - 8, (4,))
    windows = torch.stack([train_ids_N[start : start + 9] for start in starts.tolist()])
    torch.manual_seed(1337)
    table = torch.nn.Embedding(65, 65)
    return cross_entropy(table(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten()).item()


def toy_products() -> list[list[float]]:
    """GPT lecture: column sums of b, and the second rows of its running sums and means."""
    torch.manual_seed(42)
    lower = torch.ones(3, 3).tril()
    b = torch.randint(0, 10, (3, 2)).float()
    sums, means = lower @ b, lower / lower.sum(1, keepdim=True) @ b
    return [b.sum(0).tolist(), sums[1].tolist(), means[1].tolist()]


def names_lines() -> Iterator[Line]:
    words, tokenizer, splits, all_tokens = data("names-lecture", "lines")
    lengths = sorted(map(len, words))
    yield Line(
        "names; shortest, longest; distinct",
        "32 000, 32,033; 2, 15; not stated",
        f"{len(words):,}; {lengths[0]}, {lengths[-1]}; {len(set(words)):,}",
    )
    ends = tokenizer.encode("az").tolist()
    yield Line(
        "vocabulary; `.`, `a`, `z`",
        "27; 0, 1, 26",
        f"{tokenizer.vocab_size}; 0, {ends[0]}, {ends[1]}",
    )
    yield Line(
        "tokens of the first version, with `<S>` and `<E>`; empty rows or columns",
        "28; 2", f"{len(tokenizer.characters) + 2}; 2",
    )  # fmt: skip
    yield Line(
        "rows of a table for 1, 2, 3, 4 characters of context", "27; 729; 20,000; not stated",
        "; ".join(f"{27**length:,}" for length in range(1, 5)),
    )  # fmt: skip
    yield Line(
        "Bengio's example: vocabulary, embedding, context, hidden layer",
        "17,000 words, 30, 3, 100", "", "",
    )  # fmt: skip
    table = fit_counts(all_tokens, 27, order=2, add_k=0)
    assert isinstance(table, NGram)
    counts = dict(zip(table.ngrams_G.tolist(), table.counts_G.tolist(), strict=True))

    def cell(pair: str) -> int:
        first, second = (0 if c == "." else ord(c) - 96 for c in pair)
        return counts.get(27 * first + second, 0)

    yield Line(
        "bigrams in all words; nonzero cells",
        "228,146; not stated",
        f"{all_tokens.num_predictions:,}; {len(counts)} of {27**2}",
    )
    yield Line(
        "`n.`, `a.`",
        "6,763; 6,640",
        "; ".join(f"{cell(pair):,}" for pair in ("n.", "a.")),
    )
    pairs = (".a", "aj", "bh", "bg", "qr", "dz", "jq")
    yield Line(
        "counts in the bigram table: " + ", ".join(f"`{pair}`" for pair in pairs),
        "4,410; 175; 41; 0; 1; 1; 0",
        "; ".join(f"{cell(pair):,}" for pair in pairs),
    )
    cells = torch.tensor([[counts.get(27 * a + b, 0) for b in range(27)] for a in range(27)])
    yield Line(
        "broadcasting error (`N / N.sum(1)` without `keepdim`): sum of the first row",
        "about 7",
        f"{float((cells / cells.sum(1))[0].sum()):.4f}",
    )
    emma = all_tokens.ids_N[:6].tolist()
    letters = "." + tokenizer.characters
    yield Line(
        "the bigrams of `emma`", "`.e em mm ma a.`",
        "`" + " ".join(letters[a] + letters[b] for a, b in pairwise(emma)) + "`",
    )  # fmt: skip
    five = TokenDataset(all_tokens.ids_N[: 6 + sum(map(len, words[:5]))], items=True)
    yield Line("examples in the first five words, context 3", "32", str(five.num_predictions))
    three = TokenDataset(all_tokens.ids_N[: 4 + sum(map(len, words[:3]))], items=True)
    yield Line(
        "first three words: loss per character; log-likelihood", "2.4; not stated",
        f"{mean_loss(table, three)}; −{evaluate_losses(table, three).sum(dtype=float):.4f}",
    )  # fmt: skip
    for k, stated in ((0, "2.4, 2.45"), (1, "roughly 2.47"), (5, "")):
        model = fit_counts(all_tokens, 27, order=2, add_k=k)
        yield Line(f"count bigram, all words, +{k}", stated, mean_loss(model, all_tokens))

    def word(model: Model, text: str) -> str:
        ids = np.array([0, *tokenizer.encode(text), 0], dtype=np.uint8)
        value = evaluate_losses(model, TokenDataset(ids, items=True)).mean(dtype=float)
        return "infinite" if math.isinf(value) else f"{value:.3f}"

    plus_one = fit_counts(all_tokens, 27, order=2, add_k=1)
    yield Line(
        "`andrej`; `andrejq`, and with +1", "not stated; infinite, not stated",
        f"{word(table, 'andrej')}; {word(table, 'andrejq')}, {word(plus_one, 'andrejq')}",
    )  # fmt: skip
    yield Line("uniform", "3.29", mean_loss(build("bigram", 27), all_tokens))
    by_gradients = {
        strength: gradient_bigram(all_tokens, strength) for strength in (0, 0.01, 1, 10)
    }
    yield Line(
        "neural bigram, full batch, rate 50, 200 steps: loss", "about 2.47, approaching 2.45",
        mean_loss(by_gradients[0], all_tokens),
    )  # fmt: skip
    shares = [m(torch.arange(27)[:, None])[0][:, 0].softmax(-1) for m in (by_gradients[0], table)]
    yield Line(
        "largest difference from the count model's probabilities; equal samples with one seed",
        "equal in the limit",
        f"within {float((shares[0] - shares[1]).abs().max()):.3f}; {same_draws(*shares)} of 1,000 "
        "(measured)",
    )  # fmt: skip
    entropies = [
        float(torch.distributions.Categorical(logits=m(torch.arange(27)[:, None])[0][:, 0])
              .entropy().mean())
        for m in by_gradients.values()
    ]  # fmt: skip
    yield Line(
        "regularized with 0, 0.01, 1, 10 · mean(W²): mean entropy of a row",
        "acts as smoothing; stronger pulls toward uniform",
        "; ".join(f"{entropy:.3f}" for entropy in entropies) + " (measured)",
    )
    valley = api.lr_range(
        "names-lecture", model="mlp", split="lecture", low=1e-3, high=1.0, steps=1000,
        settings={"model": {"context": 3, "embedding": 10, "hidden": 200},
                  "train": {"optimizer": "sgd", "batch_size": 32}}, report=ignore,
    )  # fmt: skip
    yield Line(
        "learning-rate range test, 10^-3 to 1, 1,000 steps of 32 (here 32 names): the valley",
        "near 0.1", f"{valley.valley:.2f} (measured)",
        "`moreish lr-range names-lecture --split lecture --model mlp "
        "--low 0.001 --high 1 --steps 1000 --set model.context=3 --set model.embedding=10 "
        "--set model.hidden=200 --set train.optimizer=sgd --set train.batch_size=32`",
    )  # fmt: skip
    sizes = [
        build("mlp", 27, context=3, embedding=e, hidden=h).num_parameters()
        for e, h in ((2, 100), (2, 300), (10, 200))
    ]
    yield Line(
        "MLP parameters: 2×100, 2×300, 10×200", "3,481; 10,281; 11,897",
        "; ".join(f"{size:,}" for size in sizes),
    )  # fmt: skip
    yield Line(
        "split of words; of examples", "not stated; 182,625 / 22,655 / 22,866",
        " / ".join(f"{len(s.boundaries) - 1:,}" for s in splits.values())
        + "; " + " / ".join(f"{s.num_predictions:,}" for s in splits.values()),
    )  # fmt: skip
    first = TokenDataset(all_tokens.ids_N[:33], items=True)
    mlp = build("mlp", 27, context=3, embedding=2, hidden=100)
    careful = mean_loss(mlp, first)
    naive_loss, overfit_loss, wrong = overfit_32_examples(words[:5])
    yield Line(
        "initial loss on 32 examples: standard normal weights; output layer at zero",
        "17; 3.29",
        f"{naive_loss:.4f} with the lecture's generator; {careful}",
    )
    yield Line(
        "after 1,000 steps at rate 0.1 on the 32 examples: loss; wrong predictions",
        "very low; not stated",
        f"{overfit_loss:.4f}; {wrong} of 32",
    )
    for generator, stated_emma in ((2147483647, "3.76 → 3.74 → 3.72"), (2147483648, "3.37")):
        losses = neural_bigram_on_emma(generator)
        yield Line(
            f"neural bigram on `emma`, rate 0.1, generator seed {generator}", stated_emma,
            " → ".join(f"{loss:.4f}" for loss in losses),
        )  # fmt: skip
    stated = {2: 2.4528, 3: 2.2185, 4: 2.0560, 5: 1.9832, 6: 1.9740, 7: 1.9794}
    for order, value in stated.items():
        model = fit_counts(splits["train"], 27, "kneser-ney", order=order)
        yield Line(
            f"Kneser-Ney, order {order}, validation (independent code: {value:.4f})",
            "",
            mean_loss(model, splits["val"]),
        )


def shakespeare_lines() -> Iterator[Line]:
    (text,), tokenizer, splits, _ = data("shakespeare", "text")
    yield Line("characters; vocabulary", "1,115,394; 65", f"{len(text):,}; {tokenizer.vocab_size}")
    yield Line(
        "`hii there`", "46 47 47 1 58 46 43 56 43",
        " ".join(map(str, tokenizer.encode("hii there").tolist())),
    )  # fmt: skip
    yield Line(
        "first nine tokens", "18 47 56 57 58 1 15 47 58",
        " ".join(map(str, splits["train"].ids_N[:9].tolist())),
    )  # fmt: skip
    yield Line(
        "split by position", "90 % / 10 %",
        " / ".join(f"{len(s.ids_N):,}" for s in splits.values()),
    )  # fmt: skip
    yield Line("uniform", "4.17", mean_loss(build("bigram", 65), splits["val"]))
    yield Line(
        "untrained bigram on the lecture's first batch, generator seed 1337", "4.87",
        f"{untrained_bigram(torch.from_numpy(splits['train'].ids_N.astype(np.int64))):.4f}",
    )  # fmt: skip
    yield Line(
        "toy products: sums; running sums, second row; running means, second row",
        "14, 16; 8, 11; 4, 5.5",
        "; ".join(", ".join(f"{x:g}" for x in row) for row in toy_products()),
    )
    x = torch.randn(4, 8, 32, generator=torch.Generator().manual_seed(1337))
    loop = torch.stack([x[:, : t + 1].mean(dim=1) for t in range(8)], dim=1)
    affinity = torch.full((8, 8), -torch.inf).triu(1)
    gap = max(
        float((average - loop).abs().max())
        for average in (causal_average(x, 8), affinity.softmax(dim=-1) @ x)
    )
    yield Line("averaging by loop, product, softmax", "equal", f"equal to {gap:.0e}")
    q, k = torch.randn(2, 512, 64, 16, generator=torch.Generator().manual_seed(1337))
    affinity = q @ k.mT
    yield Line(
        "variance of q·k for heads of 16; scaled", "about 16; about 1",
        f"{affinity.var():.2f}; {(affinity / 4).var():.3f} (measured)",
    )  # fmt: skip
    scores = torch.tensor([0.1, -0.2, 0.3, -0.2, 0.5])
    yield Line(
        "softmax of (0.1, −0.2, 0.3, −0.2, 0.5), and of eight times that: the largest",
        "diffuse; peaky",
        f"{scores.softmax(0).max():.2f}; {(8 * scores).softmax(0).max():.2f}",
    )
    yield Line("context sizes", "8; 256", "", "")
    with torch.device("meta"):
        scaled_up = {"layers": 6, "heads": 6, "width": 384, "context": 256}
        big = build("lecture-gpt", 65, **scaled_up)
    yield Line(
        "parameters of the scaled-up model", "about 10 M", f"{big.num_parameters():,}"
    )  # fmt: skip
    gpt2, cut = tokenizers.tokenizer_builder("gpt2").build([], boundary=True), int(0.9 * len(text))
    sizes = [len(gpt2.encode(part)) for part in (text[:cut], text[cut:])]
    yield Line(
        "`hii there`, `Hi there` in GPT-2's tokens; its vocabulary", "3 (one of them); 50,257",
        f"{len(gpt2.encode('hii there'))}, {len(gpt2.encode('Hi there'))}; {gpt2.vocab_size:,}",
    )  # fmt: skip
    yield Line("GPT-2 tokens of training / validation split", "", "{:,} / {:,}".format(*sizes))
    stated = {2: 2.4835, 3: 2.0381, 4: 1.7191, 5: 1.5612, 6: 1.5227, 7: 1.5165, 8: 1.5192}
    for order, value in stated.items():
        model = fit_counts(splits["train"], 65, "kneser-ney", order=order)
        yield Line(
            f"Kneser-Ney, order {order}, validation (independent code: {value:.4f})",
            "",
            mean_loss(model, splits["val"]),
        )


def trained_lines() -> Iterator[Line]:
    """Read the benchmark of single runs."""
    path = RESULTS / "quality.json"
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    for name, result in results.items():
        val, peer = result["splits"]["val"], result["peer"]
        is_stated = "(makemore 1)" in peer or "(makemore 2)" in peer or "README" in peer
        if name == "names-mlp-context-3":
            peer += ", 11,897 parameters"
        other = "" if is_stated or peer == "no figure" else f" (for comparison, measured: {peer})"
        yield Line(
            name,
            peer if is_stated else "",
            f"{val['loss']:.4f} ± {val['stderr']:.4f} after {result['seconds']:.0f} s, "
            f"{result['parameters']:,} parameters{other}",
            f"`moreish train {' '.join(result['arguments'])}`",
        )
    for what, stated in (
        (
            "the GPT lecture's scaled-up model (6 layers, 6 heads, 384, context 256, batch 64)",
            "2.07 → 1.48, about 15 minutes of an A100; 10,000 characters written to a file",
        ),
        ("the same in nanoGPT, three minutes of an A100", "1.4697"),
        ("GPT-2 124M on OpenWebText", "about 2.85"),
    ):
        yield Line(what, stated, "not measured: it needs a GPU", "")
    yield from (recipe_line(recipe) for recipe in RECIPES)


def stages_lines() -> Iterator[Line]:
    """Yield the GPT lecture's statements without figures."""
    stages = {
        "a bare pretrained model": "completes documents; may answer a question with questions",
        "ChatGPT, stage 1": "thousands of documents, the question on top, the answer below",
        "ChatGPT, stage 2": "raters rank candidates; a reward model learns their ranks",
        "ChatGPT, stage 3": "PPO on the policy against the reward model",
        "translation": "`<START> neural networks are awesome <END>` from French, cross-attention "
        "in every decoder block",
        "addition": "digits of the result reversed, random problems streamed, inputs masked out "
        "of the loss; then a calculator for + − × ÷",
    }
    for what, stated in stages.items():
        yield Line(what, stated, "", "")


@dataclass(frozen=True)
class Recipe:
    """A training that a lecture describes, and the command that runs it here."""

    name: str
    what: str
    stated: str
    command: str


MLP_COMMAND = "moreish train --config configs/names-lecture-mlp-final.toml"
SMALLER_MLP = f"{MLP_COMMAND} --steps 60000 --set model.embedding=2 --set model.hidden="
RECIPES = (
    Recipe(
        "mlp-2x100",
        "makemore 2, MLP 2 × 100: loss while training; then train, dev (here 30,000 steps at 0.1 "
        "and 30,000 at 0.01)",
        "2.7; 2.6, 2.57, 2.53; 2.48, 2.46; 2.3, 2.3",
        f"{SMALLER_MLP}100",
    ),
    Recipe(
        "mlp-2x300",
        "makemore 2, MLP 2 × 300: while training; train, dev (likewise)",
        "2.5, 2.52, 2.32; 2.23, 2.24",
        f"{SMALLER_MLP}300",
    ),
    Recipe(
        "mlp-final",
        "makemore 2, MLP 10 × 200, 200,000 steps, 0.1 then 0.01: train, dev at three points; dev "
        "at the end (in these three, a step has four names, about 28 predictions, instead of 32 "
        "single ones, and the output layer starts at zero)",
        "2.3, 2.38; 2.17, 2.2; 2.16, 2.19; 2.17 (an exercise of the lecture: beat it)",
        MLP_COMMAND,
    ),
    Recipe(
        "bigram-10000",
        "GPT lecture, bigram, 10,000 steps of 256 predictions (here it starts at zero, a uniform "
        "guess)",
        "4.7 → 4.5; 3.6; 10,000 steps: about 2.5",
        "moreish train shakespeare --split lecture --model bigram --steps 10000 --set "
        "train.optimizer=adamw --set "
        "train.lr=0.001 --set train.batch_size=4 --set train.decay=constant --set train.warmup=0",
    ),
)


def recipe_path(name: str) -> Path:
    return RESULTS / f"lecture-{name}.json"


def store_recipe(name: str, folder: Path) -> None:
    """Store the losses of a run of a recipe."""
    run = Run.open(folder)
    losses = {split: [score.loss, score.stderr] for split, score in run.scores.items()}
    course = [
        (entry["step"], entry["val"]["loss"]) for entry in run.read_metrics() if "val" in entry
    ]
    content = json.dumps({"splits": losses, "course": course}) + "\n"
    recipe_path(name).write_text(content, encoding="utf-8")


def recipe_line(recipe: Recipe) -> Line:
    """Read the result of a recipe."""
    found = json.loads(recipe_path(recipe.name).read_text(encoding="utf-8"))
    shown = found["course"][:: max(1, len(found["course"]) // 5)]
    course = ", ".join(f"{loss:.3f} at {step:,}" for step, loss in shown)
    (train, _), (val, stderr) = found["splits"]["train"], found["splits"]["val"]
    losses = f"train {train:.4f}, validation {val:.4f} ± {stderr:.4f}"
    return Line(
        recipe.what, recipe.stated, f"{losses} (on the way: {course})", f"`{recipe.command}`"
    )


def kenlm_lines() -> Iterator[Line]:
    """Read the comparison with KenLM."""
    found = json.loads((RESULTS / "kenlm.json").read_text(encoding="utf-8"))
    for entry in found["orders"]:
        yield Line(
            f"KenLM's Kneser-Ney, order {entry['order']}, the lecture's names, validation",
            "",
            f"{entry['ours']:.4f} (KenLM: {entry['kenlm']:.4f})",
            "`python benchmarks/kenlm.py PATH/TO/lmplz`",
        )


def ladder_lines(source: str) -> Iterator[Line]:
    """Read the ladder on a data set, if there is one."""
    path = RESULTS / f"ladder-{source}.json"
    if not path.exists():
        return
    ladder = json.loads(path.read_text(encoding="utf-8"))
    for entry in ladder["rungs"]:
        if entry["rung"] in LECTURE_RUNGS:  # measured with other models: see `rung_lines`
            continue
        val, stated = entry["splits"]["val"], entry["stated"]
        yield Line(
            f"{entry['rung']}: {ADDS[entry['rung']]}",
            f"{stated['loss']:g} ({stated['where']})" if stated else "",
            f"{val['loss']:.4f} ± {val['stderr']:.4f}",
            f"`moreish ladder {source} --rungs {entry['rung']}`",
        )


ADDS = {rung.name: rung.adds for rung in RUNGS}

LECTURE_RUNGS = [rung.name for rung in RUNGS if rung.model["name"] == "lecture-gpt"]


def rung_lines() -> Iterator[Line]:
    """Read the ladders with the lecture's recipe, one per seed."""
    ladders = [
        json.loads(p.read_text("utf-8")) for p in sorted(RESULTS.glob("lecture-rungs-*.json"))
    ]
    losses: dict[str, list[float]] = {}
    for ladder in ladders:
        for entry in ladder["rungs"]:
            losses.setdefault(entry["rung"], []).append(entry["splits"]["val"]["loss"])
    for rung in RUNGS:
        if rung.name in losses:
            found, stated = losses[rung.name], rung.stated.get("shakespeare")
            yield Line(
                f"{rung.name}: {rung.adds}",
                f"{stated.loss:g}" if stated else "",
                f"{sum(found) / len(found):.4f} ({', '.join(f'{x:.4f}' for x in found)})",
                f"`moreish ladder shakespeare --steps 5000 --rungs {rung.name} --seed N`",
            )


IDEAS = {
    "attention": "The GPT lecture's attention rungs at its budget, each compared with the previous",
    "bengio": "Bengio's ideas, each compared with the lecture's MLP",
    "modern": "Modern changes to the transformer, each compared with GPT-2's architecture",
}


def ideas() -> Iterator[str]:
    """Yield a table for each family of variants of benchmarks/ideas.py."""
    path = RESULTS / "ideas.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, title in IDEAS.items():
        if name not in found:
            continue
        family = found[name]
        budget = ", ".join(
            f"{key.replace('_', ' ')} {value}" for key, value in family["train"].items()
        )
        head = (
            f"## {title}\n\n{family['source']}, {budget}, {family['seeds']} seeds, validation; "
            "gains with 95 % confidence intervals\n(paired by item or span of text; they include "
            f"the variation between seeds). `python benchmarks/ideas.py --only {name}`\n\n| "
            "variant | parameters | loss | compared with | gain | result "
            "|\n|---|---|---|---|---|---|\n"
        )
        rows = []
        for entry in family["variants"]:
            against, gain = entry.get("against", ""), ""
            if against:
                gain = f"{entry['gain']:+.4f} ({entry['low']:+.4f} to {entry['high']:+.4f})"
            rows.append(
                f"| {entry['variant']} | {entry['parameters']:,} | {entry['loss']:.4f} | {against} "
                f"| {gain} | {entry.get('says', '')} |"
            )
        yield head + "\n".join(rows) + "\n"


def page() -> str:
    parts = ["# The lectures' figures and Moreish's measurements\n"]
    parts.append(
        "Made by `python benchmarks/lecture_numbers.py`. Losses are exact, over whole splits, in "
        'nats per\ncharacter. "Stated" is what a lecture says, often rounded and often from a '
        'few random batches;\n"exact" is computed from the data; "measured" comes from one or '
        "more training runs. Most\nexact figures are also tests. GPT-3's table of sizes is in "
        "[planning.md](planning.md).\n"
    )
    sections = {
        "Names (makemore)": names_lines(),
        "Tiny Shakespeare (the GPT lecture, nanoGPT)": shakespeare_lines(),
        "An independent implementation of Kneser-Ney": kenlm_lines(),
        "Single runs, validation loss (`python benchmarks/quality.py`)": trained_lines(),
        "The ladder on the lecture's names": ladder_lines("names-lecture"),
        "The ladder on tiny Shakespeare": ladder_lines("shakespeare"),
        "The GPT lecture's rungs at its recipe": rung_lines(),
        "Statements without figures": stages_lines(),
    }
    computed = list(sections)[:3]
    for title, lines in sections.items():
        rows = [f"| {x.what} | {x.stated} | {x.ours} | {x.how} |" for x in lines]
        if rows:
            ours = "exact" if title in computed else "measured"
            head = f"| quantity | stated | {ours} | how to reproduce |\n|---|---|---|---|\n"
            parts.append(f"## {title}\n\n{head}" + "\n".join(rows) + "\n")
    return "\n".join([*parts, *ideas()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/lecture-numbers.md"))
    names = ", ".join(recipe.name for recipe in RECIPES)
    parser.add_argument(
        "--store", nargs=2, metavar=("RECIPE", "RUN"), help=f"store the losses of a run: {names}"
    )
    options = parser.parse_args()
    if options.store:
        store_recipe(options.store[0], Path(options.store[1]))
    options.out.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
