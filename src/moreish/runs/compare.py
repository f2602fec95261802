"""Paired comparison of runs on the same tokens, with confidence intervals.

P predictions, U units (items, or stretches of running text of equal size).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from statistics import NormalDist, mean, variance

import numpy as np
from numpy.typing import NDArray

from moreish.data import SPLIT_TITLES, SplitName
from moreish.errors import MoreishError
from moreish.evaluate import STDERR_BLOCK, evaluate_losses
from moreish.models import CountBasedModel
from moreish.runs.run import Run
from moreish.utils.text import plural

CONFIDENCE = 0.95

NORMAL_FREEDOM = 2000
"""Degrees of freedom beyond which Student's t distribution is taken as normal."""

Sums = NDArray[np.float64]
Sizes = NDArray[np.integer]


MAX_COMPARED = 10_000
"""Examples whose predictions are compared."""


@dataclass(frozen=True, kw_only=True, repr=False)
class RunGroup:
    """Runs that differ only in their random seed."""

    name: str
    runs: list[Run]
    losses: list[float]
    """The loss of each run, in nats per token, or per byte if the tokenizers differ."""
    unit_sums_U: Sums
    """The sum of the losses in each unit, in nats, averaged over the runs."""

    def __repr__(self) -> str:
        return f"RunGroup({self.name}: {plural(len(self.runs), 'run')}, loss {self.loss:.4f})"

    @property
    def loss(self) -> float:
        return mean(self.losses)

    @property
    def is_single_seed(self) -> bool:
        """Whether the effect of the seed is unknown: it has an effect, and there is one run."""
        return len(self.runs) == 1 and not isinstance(self.runs[0].model, CountBasedModel)

    @property
    def seed_variance(self) -> float:
        """Variance of the mean loss due to the seed; 0 for a single run, where it is unknown."""
        runs = len(self.losses)
        return variance(self.losses) / runs if runs > 1 else 0.0


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """The difference between the losses of two groups and its confidence interval."""

    better: str
    worse: str
    difference: float
    """Loss of the worse group minus loss of the better one."""
    stderr: float
    low: float
    high: float
    is_single_seed: bool
    """Whether the effect of the seed on one of the groups is unknown."""
    unit: str = "token"
    """What the losses are per: "token", or "byte" if the tokenizers differ."""

    @property
    def is_significant(self) -> bool:
        """Whether the difference is significant: the interval excludes zero."""
        return self.low > 0 or math.isinf(self.difference)

    def __str__(self) -> str:
        return self.sentence()

    def __repr__(self) -> str:
        return f"Comparison({self.sentence()})"

    def sentence(self) -> str:
        """The result in plain words."""
        if math.isnan(self.difference):
            return f"{self.better} and {self.worse} both give the text probability zero"
        if math.isinf(self.difference):
            return f"{self.better} is better than {self.worse}, which gives it probability 0"
        interval = (
            f"{self.difference:.4f} nats per {self.unit} (95 % between {self.low:.4f} and "
            f"{self.high:.4f})"
        )
        caution = (
            "; one run does not show how much other seeds would change"
            if self.is_single_seed
            else ""
        )
        if self.is_significant:
            return f"{self.better} is better than {self.worse} by {interval}{caution}"
        return (
            f"{self.better} and {self.worse} are not significantly different: they differ by "
            f"{interval}{caution}"
        )


def compare_runs(
    runs: Sequence[Run],
    split: SplitName = "val",
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> tuple[list[RunGroup], list[Comparison]]:
    """Group runs by their settings, best first, and compare every pair of groups.

    Differences are paired by unit, as in the standard error of a single loss; the variance
    between seeds is added for groups of several runs.

    Args:
        runs: at least two, trained on the same text and split.
        split: the split to evaluate; evaluations of the test split are counted.
        progress: called with a description and the fraction that is done.

    Raises:
        MoreishError: the runs differ in their text or split, or there is only one group.
    """
    first = runs[0]
    same_tokens = all(
        run.record.data.sha256.get(split) == first.record.data.sha256.get(split)
        and run.record.tokenizer == first.record.tokenizer
        for run in runs
    )
    units = [_units(run, split, per_byte=not same_tokens) for run in runs]
    if not same_tokens:
        text = _split_text(first, split)
        for run in runs[1:]:
            if run.kind != first.kind or _split_text(run, split) != text:
                raise MoreishError(
                    f"{first.path} and {run.path} have different {SPLIT_TITLES[split]} splits: "
                    "only runs of one text and one split can be compared"
                )
    sizes_U = units[0][1]
    groups: dict[str, list[tuple[Run, Sums]]] = {}
    for run, (unit_P, _) in zip(runs, units, strict=True):
        report = partial(progress, f"evaluating {run.path}")
        losses = evaluate_losses(run.model, run.split(split), progress=report)
        sums_U: Sums = np.bincount(unit_P, losses, minlength=len(sizes_U)).astype(np.float64)
        groups.setdefault(settings_key(run), []).append((run, sums_U))
        if split == "test":
            run.count_test_evaluation()
    ranked = sorted((_group(members, sizes_U) for members in groups.values()), key=lambda g: g.loss)
    if len(groups) < 2:
        raise MoreishError("these runs differ only in their seed: there is nothing to compare")
    unit = "token" if same_tokens else "byte"
    return ranked, [compare_groups(a, b, sizes_U, unit) for a, b in combinations(ranked, 2)]


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


def compare_groups(
    better: RunGroup, worse: RunGroup, sizes_U: Sizes, unit: str = "token"
) -> Comparison:
    """Compare two groups by Welch's t test over units and seeds.

    Args:
        better: the group whose loss is not higher.
        worse: the other one.
        sizes_U: number of tokens or bytes of each unit.
        unit: "token" or "byte", whichever that is.
    """
    difference = worse.loss - better.loss  # NaN if both are infinite
    stderr = margin = math.nan
    if math.isfinite(difference):
        units = len(sizes_U)
        residuals_U = worse.unit_sums_U - better.unit_sums_U - difference * sizes_U
        squares = float(residuals_U @ residuals_U) / float(sizes_U.sum()) ** 2
        # The variance of each part, and its degrees of freedom.
        parts = [(units / (units - 1) * squares, units - 1)]
        parts += [(g.seed_variance, len(g.runs) - 1) for g in (better, worse) if len(g.runs) > 1]
        total = sum(part for part, _ in parts)
        # Welch-Satterthwaite degrees of freedom: few seeds give a wide interval.
        freedom = total**2 / max(sum(part**2 / df for part, df in parts), 1e-300)
        stderr = math.sqrt(total)
        margin = student_quantile(0.5 + CONFIDENCE / 2, freedom) * stderr
    return Comparison(
        better=better.name,
        worse=worse.name,
        difference=difference,
        stderr=stderr,
        low=difference - margin,
        high=difference + margin,
        is_single_seed=better.is_single_seed or worse.is_single_seed,
        unit=unit,
    )


@dataclass(frozen=True, kw_only=True)
class PredictionComparison:
    """How many targets two runs of examples predict right, on the same inputs."""

    better: str
    worse: str
    shares: tuple[float, float]
    """Share of targets that each predicts right."""
    stderr: float
    """Standard error of the difference, paired by example."""
    examples: int

    @property
    def difference(self) -> float:
        return self.shares[0] - self.shares[1]

    def sentence(self) -> str:
        """The result in plain words."""
        right, other = (f"{share:.2%}" for share in self.shares)
        interval = f"{self.difference:.2%} ± {self.stderr:.2%}"
        is_real = self.difference > 2 * self.stderr
        verb = "predicts more" if is_real else "does not predict significantly more"
        return (
            f"{self.better} {verb} of {self.examples:,} targets right than {self.worse}: {right} "
            f"and {other} (difference {interval})"
        )


def compare_predictions(
    runs: Sequence[Run], split: SplitName = "val"
) -> list[PredictionComparison]:
    """Compare the predictions of each pair of runs of examples, the better one first; an empty list
    for runs of text."""
    if any(run.kind != "examples" for run in runs):
        return []
    is_right: dict[str, NDArray[np.float64]] = {}
    for run in runs:
        predicted = run.predict_split(run.split(split), MAX_COMPARED)
        is_right[str(run.path)] = np.array(predicted.is_right, dtype=np.float64)
    ranked = sorted(is_right, key=lambda name: -float(is_right[name].mean()))
    found = []
    for a, b in combinations(ranked, 2):
        gap = is_right[a] - is_right[b]
        found.append(
            PredictionComparison(
                better=a,
                worse=b,
                shares=(float(is_right[a].mean()), float(is_right[b].mean())),
                stderr=float(gap.std(ddof=1)) / math.sqrt(len(gap)),
                examples=len(gap),
            )
        )
    return found


def student_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t distribution, by numerical integration.

    With t = sqrt(freedom) tan(angle), its density is proportional to cos(angle)^(freedom - 1).

    Args:
        probability: above 0.5.
        freedom: degrees of freedom, at least 1.
    """
    if freedom > NORMAL_FREEDOM:
        return NormalDist().inv_cdf(probability)
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    cumulative = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    angle = float(np.interp((2 * probability - 1) * cumulative[-1], cumulative, angles))
    return math.sqrt(freedom) * math.tan(angle)


def _units(run: Run, split: SplitName, *, per_byte: bool) -> tuple[NDArray[np.int64], Sizes]:
    """Return the unit of each prediction, and the size of each unit in tokens or bytes."""
    tokens = run.split(split)
    lengths_N = np.ones(len(tokens.ids_N), dtype=np.int64)
    if per_byte:
        ids_N = tokens.ids_N[:].astype(np.int64)
        lengths_N = run.tokenizer.byte_lengths()[ids_N] - run.tokenizer.implied_spaces(ids_N)
    lengths_P = lengths_N[1:]
    if tokens.separator is not None:  # inputs are not predicted
        lengths_P = lengths_P * tokens.target_mask
    if tokens.items:
        unit_P = np.searchsorted(tokens.boundaries, np.arange(tokens.num_predictions), "right") - 1
    else:  # a block of bytes is the same text for every tokenizer
        before = int(lengths_N[0]) if per_byte else 0  # the first token is not predicted
        unit_P = (before + np.cumsum(lengths_P) - 1) // STDERR_BLOCK
    sizes_U = np.bincount(unit_P, lengths_P)
    if len(sizes_U) < 2:
        title = SPLIT_TITLES[split]
        raise MoreishError(f"the {title} split of {run.path} is too short for a comparison")
    return unit_P, sizes_U


def _split_text(run: Run, split: SplitName) -> list[bytes]:
    """Return the text of a split, item by item."""
    tokens = run.split(split)
    items = [tokens.ids_N[:].astype(np.int64)]
    if tokens.items:
        items = [tokens.item(i) for i in range(len(tokens.boundaries) - 1)]
    return [run.tokenizer.decode_bytes(item) for item in items]


def settings_key(run: Run) -> str:
    """Return a string that is equal for runs that differ only in their seed.

    The source and the tracker are ignored; `compare_runs` checks that the texts are equal.
    """
    data = run.config.data.model_copy(update={"source": ""})
    train = run.config.train.model_copy(update={"track": None})
    settings = {"seed": 0, "data": data, "train": train}
    return run.config.model_copy(update=settings).model_dump_json()
