"""Is one model better than another, or was it luck? Paired differences on the same tokens.

U units (items, or stretches of running text).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from statistics import NormalDist, mean, variance

import numpy as np
from numpy.typing import NDArray

from moreish.data import SplitName
from moreish.errors import MoreishError
from moreish.evaluate import STDERR_BLOCK, evaluate_losses
from moreish.models import CountBasedModel
from moreish.runs.run import Run

CONFIDENCE = 0.95

Sums = NDArray[np.float64]
Sizes = NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Runs that differ in nothing but their seed."""

    name: str
    runs: list[Run]
    losses: list[float]
    """Of each run, per token, or per byte where tokenizers differ."""
    unit_sums_U: Sums
    """The mean over the runs of each unit's summed loss, in nats."""

    @property
    def loss(self) -> float:
        return mean(self.losses)

    @property
    def lone(self) -> bool:
        """Whether another seed might give another loss, and only one was tried."""
        return len(self.runs) == 1 and not isinstance(self.runs[0].model, CountBasedModel)

    @property
    def seed_variance(self) -> float:
        """Of the mean loss, as far as it comes from the seed; unknown (0) for one run."""
        runs = len(self.losses)
        return variance(self.losses) / runs if runs > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of two groups: `difference` is the second's loss minus the first's, which is not higher."""

    better: str
    worse: str
    difference: float
    stderr: float
    low: float
    high: float
    lone: bool
    """Whether how much other seeds would change is not known."""

    @property
    def real(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or math.isinf(self.difference)

    def sentence(self) -> str:
        """What it means, in plain words."""
        if math.isnan(self.difference):
            return f"{self.better} and {self.worse} both rule out what really came"
        if math.isinf(self.difference):
            return f"{self.better} is better than {self.worse}, which rules out what really came"
        interval = f"{self.difference:.4f} nats (95 % between {self.low:.4f} and {self.high:.4f})"
        caution = "; how much other seeds would change is not known from one" if self.lone else ""
        if self.real:
            return f"{self.better} is better than {self.worse} by {interval}{caution}"
        return (
            f"{self.better} and {self.worse} cannot be told apart: they differ by {interval}"
            f"{caution}"
        )


def compare(
    runs: Sequence[Run],
    split: SplitName = "val",
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> tuple[list[RunGroup], list[Comparison]]:
    """Group `runs` by their settings, best first, and compare every two groups.

    Differences are paired by item, or by stretch of running text, as the standard error of a
    single loss is; the spread between seeds is added where there are several.

    Raises:
        MoreishError: the runs were not made from the same text and split, or there is one group.
    """
    first = runs[0]
    same_tokens = all(
        run.record.data.sha256.get(split) == first.record.data.sha256.get(split)
        and run.record.tokenizer == first.record.tokenizer
        for run in runs
    )
    units = [_units(run, split, in_bytes=not same_tokens) for run in runs]
    if not same_tokens:
        text = _text(first, split)
        for run in runs[1:]:
            if run.kind != first.kind or _text(run, split) != text:
                raise MoreishError(
                    f"{first.path} and {run.path} have different {split} splits: only runs of one "
                    "text and one split can be compared"
                )
    sizes_U = units[0][1]
    groups: dict[str, list[tuple[Run, Sums]]] = {}
    for run, (unit_P, _) in zip(runs, units, strict=True):
        told = partial(progress, f"evaluating {run.path}")
        losses = evaluate_losses(run.model, run.split(split), progress=told)
        sums_U: Sums = np.bincount(unit_P, losses, minlength=len(sizes_U)).astype(np.float64)
        groups.setdefault(_settings_of(run), []).append((run, sums_U))
    if len(groups) < 2:
        raise MoreishError("these runs differ in their seed at most: there is nothing to compare")
    ranked = sorted((_group(members, sizes_U) for members in groups.values()), key=lambda g: g.loss)
    return ranked, [_compared(a, b, sizes_U) for a, b in combinations(ranked, 2)]


def _group(members: list[tuple[Run, Sums]], sizes_U: Sizes) -> RunGroup:
    runs = [run for run, _ in members]
    if len({run.config.seed for run in runs}) < len(runs):
        names = " and ".join(str(run.path) for run in runs)
        raise MoreishError(f"{names} have the same settings and seed: leave out all but one")
    return RunGroup(
        name=str(runs[0].path) + (f" and {len(runs) - 1} more" if len(runs) > 1 else ""),
        runs=runs,
        losses=[float(sums.sum() / sizes_U.sum()) for _, sums in members],
        unit_sums_U=np.mean([sums for _, sums in members], axis=0),
    )


def _compared(better: RunGroup, worse: RunGroup, sizes_U: Sizes) -> Comparison:
    difference = worse.loss - better.loss  # NaN if both are infinite
    lone = better.lone or worse.lone
    if not math.isfinite(difference):
        return Comparison(
            better=better.name, worse=worse.name, difference=difference, stderr=math.nan,
            low=math.nan, high=math.nan, lone=lone,
        )  # fmt: skip
    residuals_U = worse.unit_sums_U - better.unit_sums_U - difference * sizes_U
    units = len(sizes_U)
    of_tokens = units / (units - 1) * float(residuals_U @ residuals_U) / float(sizes_U.sum()) ** 2
    parts = [(of_tokens, units - 1)]
    parts += [(g.seed_variance, len(g.runs) - 1) for g in (better, worse) if len(g.runs) > 1]
    total = sum(part for part, _ in parts)
    # Welch and Satterthwaite: few seeds make a wide interval.
    freedom = total**2 / max(sum(part**2 / df for part, df in parts), 1e-300)
    reach = student_quantile(0.5 + CONFIDENCE / 2, freedom) * math.sqrt(total)
    return Comparison(
        better=better.name,
        worse=worse.name,
        difference=difference,
        stderr=math.sqrt(total),
        low=difference - reach,
        high=difference + reach,
        lone=lone,
    )


def student_quantile(share: float, freedom: float) -> float:
    """Of Student's t distribution, for a share above a half and any degrees of freedom from 1 on.

    With t = sqrt(freedom) tan(angle) its density is that of cos(angle)^(freedom - 1).
    """
    if freedom > 2000:
        return NormalDist().inv_cdf(share)
    angles = np.linspace(0, math.pi / 2, 200_001)
    mass = np.cos(angles) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum(mass[1:] + mass[:-1])])
    angle = float(np.interp((2 * share - 1) * below[-1], below, angles))
    return math.sqrt(freedom) * math.tan(angle)


def _units(run: Run, split: SplitName, *, in_bytes: bool) -> tuple[NDArray[np.int64], Sizes]:
    """(P,) the unit of each predicted token, and (U,) the size of each unit."""
    tokens = run.split(split)
    lengths_P = np.ones(tokens.num_predictions, dtype=np.int64)
    if in_bytes:
        lengths_P = run.tokenizer.byte_lengths()[tokens.ids_N[1:].astype(np.int64)]
    if tokens.items:
        unit_P = np.searchsorted(tokens.boundaries, np.arange(tokens.num_predictions), "right") - 1
    else:
        # A stretch of bytes is the same stretch of text, however it was cut into tokens.
        before = 0
        if in_bytes:  # the first token is not predicted, and may be of several bytes
            before = int(run.tokenizer.byte_lengths()[int(tokens.ids_N[0])])
        unit_P = (before + np.cumsum(lengths_P) - 1) // STDERR_BLOCK
    sizes_U = np.bincount(unit_P, lengths_P)
    if len(sizes_U) < 2:
        raise MoreishError(f"the {split} split of {run.path} is too short to compare anything on")
    return unit_P, sizes_U


def _text(run: Run, split: SplitName) -> list[bytes]:
    """What a split stands for, item by item."""
    tokens, tokenizer = run.split(split), run.tokenizer
    if not tokens.items:
        return [tokenizer.decode_bytes(tokens.ids_N[:].astype(np.int64))]
    return [tokenizer.decode_bytes(tokens.item(i)) for i in range(len(tokens.boundaries) - 1)]


def _settings_of(run: Run) -> str:
    """Equal for runs that differ in their seed only. Where the text came from does not matter: that
    it is the same has been checked. Nor does where a run was shown."""
    data = run.config.data.model_copy(update={"source": ""})
    train = run.config.train.model_copy(update={"track": None})
    settings = {"seed": 0, "data": data, "train": train}
    return run.config.model_copy(update=settings).model_dump_json()
