"""From a run to its pictures: each that its model has, light and dark.

V vocabulary, C width, T time.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from moreish.errors import MoreishError
from moreish.evaluate import (
    attention_maps,
    bigram_counts,
    bigram_probabilities,
    context_counts,
    find_transformer,
    token_embedding,
    tokens_by_frequency,
)
from moreish.figures import draw
from moreish.figures.style import DARK, LIGHT, Theme, save, themed
from moreish.models import CountBasedModel, Mixture
from moreish.runs import Run
from moreish.training import LRRange, build_optimizer, make_sampler, next_token, set_rate

SHOWN_TOKENS = 24
"""Of a text whose attention is drawn."""

MIXED = (
    " In training a mixture is its network alone; on validation its counts have an equal say until "
    "the weight is set at the end."
)

SATURATED = 0.97
"""A tanh beyond this passes hardly any gradient, and a gate so near to open or shut no more."""

MORE_STEPS = 10
"""That are made to see how much one changes: AdamW's first ones are larger than the later."""


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
                "point." + MIXED * isinstance(run.model, Mixture)
            ),
            lambda theme: draw.curves(steps, evaluations, theme),
        )
    if (tested := LRRange.load(run.path)) is not None:
        yield (
            "lr-range",
            "Which learning rate",
            "The range test from which this run has its rate: one step of a fresh model at each.",
            lambda theme: draw.lr_range(
                tested.rates, tested.losses, tested.smoothed, tested.valley, tested.suggested, theme
            ),
        )
    label, size = run.tokenizer.label, run.tokenizer.vocab_size
    ids_N = run.split("train").ids_N
    most_V = tokens_by_frequency(context_counts(ids_N, size))
    frequent_M = np.sort(most_V[: draw.MOST_CELLS])
    names = [label(int(token)) for token in frequent_M]
    counts_MM = bigram_counts(ids_N, frequent_M, size)
    yield (
        "pairs-counted",
        "Pairs in the training data",
        "A row for each token, a column for what came after it. The first row is how items begin, "
        "the first column how they end." if run.kind == "lines"
        else "A row for each token, a column for what came after it.",
        lambda theme: draw.pairs(counts_MM, names, theme, counts=True, of=size),
    )  # fmt: skip
    expected_MM = bigram_probabilities(run.model, frequent_M)
    yield (
        "pairs-expected",
        "Pairs that the model expects",
        (
            "What the model would write after a single token, in per cent. Where it differs from "
            "the counts, it has smoothed them or learned to wait for more of the text."
        ),
        lambda theme: draw.pairs(expected_MM, names, theme, counts=False, of=size),
    )
    if (weight_VC := token_embedding(run.model, size)) is not None:
        chosen = np.sort(most_V[:120])
        yield (
            "embeddings",
            "Tokens as the model sees them",
            "Tokens that lie together are used alike. Vowels have another colour.",
            lambda theme: draw.embeddings(
                weight_VC[chosen], [label(int(i)) for i in chosen], theme
            ),
        )
    ids = _text_ids(run, text)
    if (network := find_transformer(run.model)) is not None:
        few = ids[: min(SHOWN_TOKENS, network.context)]
        if run.kind == "lines":  # each item is read afresh, so one of them is enough
            few = max(np.split(few, np.flatnonzero(few == run.tokenizer.boundary_id)), key=len)
        maps = [maps_HTT.numpy() for maps_HTT in attention_maps(run.model, few)]
        yield (
            "attention",
            "Where each token looks",
            (
                "One square for each head: a row is a token, and its strong cells are the earlier "
                f"tokens from which it takes. {draw.left_off(maps)}The text is cut at "
                f"{SHOWN_TOKENS} tokens."
            ),
            lambda theme: draw.attention(maps, [label(int(i)) for i in few], theme),
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
                "In the order of their work: how widely each layer's output spreads; units of a "
                "tanh or a gate that are saturated, or of a ReLU that were silent on a whole "
                "batch; the deviation of the gradient; and how much a step at the highest rate "
                "changes a matrix, over its own deviation. About a thousandth is healthy (makemore "
                "3)."
            ),
            lambda theme: draw.statistics(layers, theme),
        )


def _log(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    entries = list(run.read_metrics())
    return [e for e in entries if "loss" in e], [e for e in entries if "val" in e]


def _text_ids(run: Run, text: str | None) -> np.ndarray:
    """A few items or a stretch of running text, at most 400 tokens."""
    if text is not None:
        ids = run.tokenizer.encode(run.known_text(text, "error"))
        if len(ids) < 2:
            raise MoreishError(f"--text {text!r}: give at least two characters")
        edge = [run.tokenizer.boundary_id]
        return np.concatenate([edge, ids, edge]) if run.kind == "lines" else ids
    tokens = run.split("val")
    if run.kind == "text":
        return tokens.ids_N[:400].astype(np.int64)
    ends = tokens.boundaries[1:]  # whole items, the first however long it is
    last = max(int(ends[0]), int(ends[ends < 160][-1]) if (ends < 160).any() else 0)
    return tokens.ids_N[: last + 1].astype(np.int64)


@torch.inference_mode()
def _surprisals(run: Run, ids: np.ndarray) -> list[tuple[str, float]]:
    from moreish.evaluate import evaluate_losses

    losses = evaluate_losses(run.model, replace(run.split("val"), ids_N=ids.astype(np.uint32)))
    told = [run.tokenizer.label(int(token)) for token in ids[1:]]
    return [(label, float(loss)) for label, loss in zip(told, losses, strict=True)]


def _layers(run: Run) -> list[dict[str, Any]]:
    """Statistics of every matrix and non-linearity, in the order of their work, from a few more
    training steps at the run's highest rate, on a copy of the model."""
    if isinstance(run.model, CountBasedModel):
        return []
    model, config = copy.deepcopy(run.model).train(), run.config.train
    model.fit_counts(run.split("train"))
    sampler = make_sampler(run.config, run.split("train"), model)
    optimizer = build_optimizer(model, config)
    assert isinstance(config.lr, float)
    set_rate(optimizer, config.lr)
    layers: dict[str, dict[str, Any]] = {}
    for number in range(MORE_STEPS):
        batch = sampler.batch(number)
        with Watch(model) if number == 0 else nullcontext() as watch:
            loss = next_token(model, batch)
        layers = layers if watch is None else watch.layers
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip or math.inf)
        if number == MORE_STEPS - 1:
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            gradients = {n: p.grad.std() for n, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
    for name, matrix in model.named_parameters():
        layer = layers.get(name.removesuffix(".weight"))
        if matrix.ndim == 2 and layer is not None and name in gradients:
            layer["gradient"] = float(gradients[name])
            change = (matrix.detach() - before[name]).std()
            layer["update"] = float(change / before[name].std().clamp(min=1e-12))
    return list(layers.values())


class Watch(TorchFunctionMode):
    """While open, notes what comes out of each matrix and each non-linearity of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.layers: dict[str, dict[str, Any]] = {}
        self._inside: list[str] = []
        self._alive: dict[str, Tensor] = {}
        for name, module in model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name))
            module.register_forward_hook(partial(self._leave, name))

    def _enter(self, name: str, *_: Any) -> None:
        self._inside.append(name)

    def _leave(self, name: str, module: nn.Module, _: Any, output: Any) -> None:
        self._inside.pop()
        if isinstance(module, nn.Linear | nn.Embedding):
            self._note(name, output)

    def _note(self, name: str, output: Tensor, silent: float | None = None, kind: str = "") -> None:
        """A recurrent network comes here once a token: the mean of all times counts."""
        new = {"name": name, "calls": 0, "spread": 0.0, "silent": silent, "kind": kind}
        layer = self.layers.setdefault(name, {**new, "gradient": None, "update": None})
        layer["calls"] += 1
        layer["spread"] += (float(output.detach().float().std()) - layer["spread"]) / layer["calls"]
        if silent is not None:
            layer["silent"] += (silent - layer["silent"]) / layer["calls"]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        where = ".".join(filter(None, [self._inside[-1] if self._inside else "", name]))
        match name:
            case "tanh" | "sigmoid":
                reach = output.detach().abs() if name == "tanh" else (2 * output.detach() - 1).abs()
                self._note(where, output, float((reach > SATURATED).float().mean()), "saturated")
            case "relu" | "gelu" | "silu":
                # GELU and SiLU are never quite silent, but below -4 they are as good as that.
                speaks = args[0].detach() > (0.0 if name == "relu" else -4.0)
                units = speaks.flatten(0, -2).any(dim=0)
                alive = self._alive[where] = self._alive.get(where, units) | units
                self._note(where, output, 0.0, "dead")
                self.layers[where]["silent"] = float(1 - alive.float().mean())
        return output
