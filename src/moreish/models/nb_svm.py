"""NB-SVM: a linear model on the log-count ratios of naive Bayes (Wang and Manning 2012, "Baselines
and Bigrams", section 2.3).

E examples, F distinct n-grams of the training split, L labels.
"""

from typing import Literal, final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from moreish.models.example_ngrams import NGramSets, log_count_ratios
from moreish.models.naive_bayes import MAX_WEIGHTS, NaiveBayes, NaiveBayesConfig

MAX_ITERATIONS = 60
"""Iterations of L-BFGS."""

HISTORY = 10
"""Earlier steps that it remembers, each in two arrays of the size of the weights."""


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

    def _weights_of(self, examples: NGramSets) -> tuple[Tensor, Tensor]:
        config = self.config
        assert isinstance(config, NBSVMConfig)
        ratios_FL, first_bias_L = super()._weights_of(examples)
        groups = [(ratios_FL, examples)]
        if examples.labels**2 * examples.features <= MAX_WEIGHTS:
            groups = []
            for label in range(examples.labels):
                without = log_count_ratios(examples.joint_counts, config.smoothing, label)
                own = examples.where(examples.label_E == label)
                groups.append((torch.from_numpy(without), own))
        shared = torch.full((), 0.1, requires_grad=True)
        own_FL = torch.zeros_like(ratios_FL, requires_grad=True)
        bias_L = first_bias_L.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [shared, own_FL, bias_L],
            max_iter=MAX_ITERATIONS,
            history_size=HISTORY,
            line_search_fn="strong_wolfe",
        )
        number = len(examples.label_E)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = config.strength / 2 * own_FL.square().sum()
            for group_ratios_FL, group in groups:
                weight_FL = group_ratios_FL * (shared + own_FL)
                scores_EL = _SparseProduct.apply(group.has_ngram, weight_FL) + bias_L
                target_E = torch.from_numpy(group.label_E)
                loss = loss + F.cross_entropy(scores_EL, target_E, reduction="sum")
            loss = loss / number
            loss.backward()
            return loss

        optimizer.step(closure)
        return (ratios_FL * (shared + own_FL)).detach(), bias_L.detach()


class _SparseProduct(torch.autograd.Function):
    """The product of a sparse matrix, which needs no gradient, and a dense one."""

    @staticmethod
    def forward(ctx, sparse, dense):  # type: ignore[no-untyped-def]
        ctx.sparse = sparse
        return sparse @ dense

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return None, ctx.sparse.t() @ gradient
