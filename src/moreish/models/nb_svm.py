"""NB-SVM: a linear model on the log-count ratios of naive Bayes (Wang and Manning 2012, "Baselines
and Bigrams", section 2.3).

E examples, P pairs of an example and an n-gram, F distinct n-grams of the training split, L labels.
"""

import warnings
from typing import Literal, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from moreish.models.naive_bayes import (
    MAX_WEIGHTS,
    NaiveBayes,
    NaiveBayesConfig,
    log_count_ratios,
)
from moreish.tokenizers import Ids

MAX_ITERATIONS = 60
"""Iterations of L-BFGS."""


class NBSVMConfig(NaiveBayesConfig):
    name: Literal["nb-svm"] = "nb-svm"  # type: ignore[assignment]
    strength: float = Field(16.0, ge=1e-6, le=1e6)
    """L2 regularization of the weights, which pulls them toward those of naive Bayes."""


@final
class NBSVM(NaiveBayes):
    """Logistic regression on the log-count ratios of naive Bayes: each n-gram has a weight by which
    its ratio is multiplied.

    The paper trains a support vector machine and averages its weights with their mean; here the
    weights are regularized toward one number, and a logistic loss gives probabilities. With few
    labels, the ratios that an example is trained on are those without it: otherwise rare n-grams
    seem to tell its label.
    """

    Config = NBSVMConfig

    def _fit(
        self, joint_FL: NDArray[np.float32], example_P: Ids, feature_P: Ids, label_E: Ids
    ) -> None:
        super()._fit(joint_FL, example_P, feature_P, label_E)
        assert isinstance(self.config, NBSVMConfig)
        ratios_FL, labels = self.weight_FL, joint_FL.shape[1]
        groups = [_Group.of(ratios_FL, example_P, feature_P, label_E)]
        if labels**2 * len(joint_FL) <= MAX_WEIGHTS:
            groups = []
            for label in range(labels):
                without_FL = log_count_ratios(joint_FL, self.config.smoothing, label)
                kept_P = label_E[example_P] == label
                groups.append(
                    _Group.of(
                        torch.from_numpy(without_FL),
                        (np.cumsum(label_E == label) - 1)[example_P[kept_P]],
                        feature_P[kept_P],
                        label_E[label_E == label],
                    )
                )
        shared = torch.full((), 0.1, requires_grad=True)
        own_FL = torch.zeros_like(ratios_FL, requires_grad=True)
        bias_L = self.bias_L.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [shared, own_FL, bias_L], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe"
        )
        penalty = self.config.strength / len(label_E)

        def closure() -> Tensor:
            optimizer.zero_grad()
            losses = [group.loss(shared + own_FL, bias_L) for group in groups]
            loss = torch.stack(losses).sum() / len(label_E) + penalty / 2 * own_FL.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        self.weight_FL = (ratios_FL * (shared + own_FL)).detach()
        self.bias_L = bias_L.detach()


class _Group(NamedTuple):
    """Examples that are trained on the same ratios."""

    ratios_FL: Tensor
    has_EF: Tensor
    """Which n-grams each example has, a sparse matrix."""
    target_E: Tensor

    @classmethod
    def of(cls, ratios_FL: Tensor, example_P: Ids, feature_P: Ids, label_E: Ids) -> "_Group":
        start_E = np.searchsorted(example_P, np.arange(len(label_E) + 1))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse")  # that they are in beta
            has_EF = torch.sparse_csr_tensor(
                torch.from_numpy(start_E),
                torch.from_numpy(feature_P),
                torch.ones(len(feature_P)),
                size=(len(label_E), len(ratios_FL)),
                check_invariants=False,
            )
        return cls(ratios_FL, has_EF, torch.from_numpy(label_E))

    def loss(self, weight_FL: Tensor, bias_L: Tensor) -> Tensor:
        """Return the sum of the losses."""
        scores_EL = _SparseProduct.apply(self.has_EF, self.ratios_FL * weight_FL) + bias_L
        return F.cross_entropy(scores_EL, self.target_E, reduction="sum")


class _SparseProduct(torch.autograd.Function):
    """The product of a sparse matrix, which needs no gradient, and a dense one."""

    @staticmethod
    def forward(ctx, sparse, dense):  # type: ignore[no-untyped-def]
        ctx.sparse = sparse
        return sparse @ dense

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return None, ctx.sparse.t() @ gradient
