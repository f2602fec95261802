"""From a run to its pictures: each that its model has, light and dark.

V vocabulary, C width, T time.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.data.tokens import Batch
from moreish.errors import MoreishError
from moreish.evaluate.loss import mean_loss
from moreish.figures import draw
from moreish.figures.style import DARK, LIGHT, Theme, save, themed
from moreish.models import CountedModel
from moreish.models.gpt import GPT
from moreish.models.layers import FeedForward
from moreish.run import Run

SHOWN_TOKENS = 24
"""Of a text whose attention is drawn."""

SATURATED = 0.97
"""A tanh beyond this passes hardly any gradient."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a run, and how to read it."""

    name: str
    title: str
    reading: str
    light: Path
    dark: Path


Draw = Callable[[Theme], Figure]


def make(run: Run, folder: Path, text: str | None = None) -> list[Picture]:
    """Draw every picture that the model of `run` has into `folder`.

    Args:
        text: whose attention and surprisal are drawn; None takes the start of validation.
    """
    pictures = []
    for name, title, reading, figure in _all(run, text):
        paths = {theme.name: folder / f"{name}{suffix}.svg" for theme, suffix in THEMES}
        for theme, _ in THEMES:
            with themed(theme):
                save(figure(theme), paths[theme.name])
        pictures.append(
            Picture(
                name=name, title=title, reading=reading, light=paths["light"], dark=paths["dark"]
            )
        )
    return pictures


THEMES = ((LIGHT, ""), (DARK, "-dark"))


def _all(run: Run, text: str | None) -> Iterator[tuple[str, str, str, Draw]]:
    steps, evaluations = _log(run)
    if steps and evaluations:
        yield (
            "loss",
            "Loss",
            (
                "Pale: every logged step. Where validation turns up while training falls, the "
                "model began to learn its data by heart; the best weights are those of its lowest "
                "point."
            ),
            lambda theme: draw.curves(steps, evaluations, theme),
        )
    labels = [run.tokenizer.label(token) for token in range(run.tokenizer.vocab_size)]
    counts_VV = _pair_counts(run)
    yield (
        "pairs-counted",
        "Pairs in the training data",
        "A row for each token, a column for what came after it. The first row is how items begin, "
        "the first column how they end." if run.kind == "lines"
        else "A row for each token, a column for what came after it.",
        lambda theme: draw.pairs(counts_VV, labels, theme, counts=True),
    )  # fmt: skip
    expected_VV = _expected_pairs(run)
    by_count = np.argsort(-counts_VV.sum(axis=1), kind="stable")[: draw.MOST_CELLS]
    kept = np.sort(by_count)
    yield (
        "pairs-expected",
        "Pairs that the model expects",
        (
            "What the model would write after a single token, in per cent. Where it differs from "
            "the counts, it has smoothed them or learned to wait for more of the text."
        ),
        lambda theme: draw.pairs(
            expected_VV[np.ix_(kept, kept)], [labels[i] for i in kept], theme, counts=False
        ),
    )
    if (weight_VC := _embedding(run)) is not None:
        chosen = np.sort(np.argsort(-counts_VV.sum(axis=1), kind="stable")[:120])
        yield (
            "embeddings",
            "Tokens as the model sees them",
            "Tokens that lie together are used alike. Vowels have another colour.",
            lambda theme: draw.embeddings(weight_VC[chosen], [labels[i] for i in chosen], theme),
        )
    ids = _text_ids(run, text)
    if isinstance(run.model, GPT):
        few = ids[: min(SHOWN_TOKENS, run.model.context)]
        if run.kind == "lines":  # each item is read afresh, so one of them is enough
            few = max(np.split(few, np.flatnonzero(few == 0)), key=len)
        with torch.inference_mode():
            maps = [m[0].numpy() for m in run.model.attention_maps(torch.from_numpy(few)[None])]
        yield (
            "attention",
            "Where each token looks",
            (
                "One square for each head: a row is a token, and its strong cells are the earlier "
                "tokens from which it takes."
            ),
            lambda theme: draw.attention(maps, [labels[i] for i in few], theme),
        )
    costs = _surprisals(run, ids)
    yield (
        "surprisal",
        "What surprised the model",
        (
            "Each token of a text that it was not trained on, on a ground that is the stronger the "
            "less it was expected."
        ),
        lambda theme: draw.surprisal(costs, theme),
    )
    if layers := _layers(run):
        yield (
            "layers",
            "Inside the layers",
            (
                "Left: how widely each layer's output spreads. Middle: units whose tanh is "
                "saturated, or that were silent on a whole batch. Right: the learning rate times "
                "the gradient's deviation over the matrix's (makemore, part 3); about a thousandth "
                "is healthy for plain gradient descent, AdamW rescales it."
            ),
            lambda theme: draw.statistics(layers, theme),
        )


def _log(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    entries = list(run.logged())
    return [e for e in entries if "loss" in e], [e for e in entries if "val" in e]


def _pair_counts(run: Run) -> np.ndarray:
    ids, size = run.split("train").ids_N.astype(np.int64), run.tokenizer.vocab_size
    return np.bincount(ids[:-1] * size + ids[1:], minlength=size * size).reshape(size, size)


@torch.inference_mode()
def _expected_pairs(run: Run) -> np.ndarray:
    every_VT = torch.arange(run.tokenizer.vocab_size)[:, None]
    return run.model(every_VT)[0][:, 0].softmax(dim=-1).numpy()


def _embedding(run: Run) -> np.ndarray | None:
    for name, module in run.model.named_modules():
        if name.endswith("embedding") and isinstance(module, nn.Embedding):
            weight = module.weight.detach()[: run.tokenizer.vocab_size]
            return weight.numpy() if weight.shape[1] > 1 else None
    return None


def _text_ids(run: Run, text: str | None) -> np.ndarray:
    """A few items or a stretch of running text, at most 400 tokens."""
    if text is not None:
        ids = run.tokenizer.encode(run.known_text(text, "error"))
        if len(ids) < 2:
            raise MoreishError(f"--text {text!r}: give at least two characters")
        return np.concatenate([[0], ids, [0]]) if run.kind == "lines" else ids
    tokens = run.split("val")
    if run.kind == "text":
        return tokens.ids_N[:400].astype(np.int64)
    ends = tokens.boundaries[1:]  # whole items, the first however long it is
    last = max(int(ends[0]), int(ends[ends < 160][-1]) if (ends < 160).any() else 0)
    return tokens.ids_N[: last + 1].astype(np.int64)


@torch.inference_mode()
def _surprisals(run: Run, ids: np.ndarray) -> list[tuple[str, float]]:
    from moreish.data.tokens import Tokens
    from moreish.evaluate.metrics import losses_of

    losses = losses_of(run.model, Tokens(ids.astype(np.uint32), items=run.kind == "lines"))
    told = [run.tokenizer.label(int(token)) for token in ids[1:]]
    return [(label, float(loss)) for label, loss in zip(told, losses, strict=True)]


def _layers(run: Run) -> list[dict[str, Any]]:
    """Statistics of every matrix from one batch, on a copy of the model."""
    if isinstance(run.model, CountedModel):
        return []
    model = copy.deepcopy(run.model).train()
    outputs: dict[str, Tensor] = {}
    silent: dict[str, tuple[float, str]] = {}

    def watch(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            outputs[name] = output.detach()
            if name.endswith("hidden"):
                saturated = (F.tanh(output.detach()).abs() > SATURATED).float().mean()
                silent[name] = (float(saturated), "saturated")
            if name.endswith("feedforward.up"):
                parent = model.get_submodule(name.removesuffix(".up"))
                assert isinstance(parent, FeedForward)
                units = output.detach().chunk(2, -1)[0] if parent.activation == "swiglu" else output
                least = -4.0 if parent.activation in ("gelu", "swiglu") else 0.0
                dead = (units.detach().flatten(0, 1) <= least).all(dim=0).float().mean()
                silent[name] = (float(dead), "dead")

        module.register_forward_hook(hook)

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            watch(name, module)
    batch = _some(run, model.max_length or 64)
    mean_loss(model(batch.tokens_BT)[0], batch.targets_BT).backward()
    lr = run.config.train.lr
    layers = []
    for name, matrix in model.named_parameters():
        layer = name.removesuffix(".weight")
        if matrix.ndim != 2 or layer not in outputs or matrix.grad is None:
            continue
        share, kind = silent.get(layer, (None, ""))
        step = (lr if isinstance(lr, float) else 1.0) * matrix.grad.std()
        layers.append(
            {
                "name": layer,
                "spread": float(outputs[layer].float().std()),
                "silent": share,
                "kind": kind,
                "update": float(step / matrix.detach().std().clamp(min=1e-12)),
            }
        )
    return layers


def _some(run: Run, length: int) -> Batch:
    """Up to 32 pieces of the training data."""
    tokens = run.split("train")
    spans = tokens.spans(length)
    return tokens.gather(spans[np.linspace(0, len(spans) - 1, min(32, len(spans))).astype(int)])
