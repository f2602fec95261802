"""Computations behind the Predict view: targets, what they attend to, and the worst mistakes.

H heads, D positions of a target, I positions of an input.
"""

from collections import Counter

import numpy as np
import torch

from moreish.evaluate import confusion
from moreish.generate import Prediction, Predictor, Search
from moreish.models import EncoderDecoder
from moreish.serve.http import ApiError, Limits, bad_request
from moreish.serve.native import schemas
from moreish.serve.native.inspect import cached_per_model, check_length
from moreish.serve.registry import ServedModel

MAX_INPUTS = 256
"""Inputs of one request."""

NUM_EXAMPLES = 500
"""Examples of the validation split that mistakes are looked for in."""

MAX_MISTAKES = 10
MAX_LABELS = 12
"""Mistakes and labels that the page shows."""


def predict(
    served: ServedModel, body: schemas.PredictRequest, limits: Limits
) -> schemas.PredictResponse:
    """Predict the targets of inputs.

    Raises:
        ApiError: the model predicts no targets, or the request exceeds a limit (400).
        MoreishError: an input cannot be read.
    """
    check_predicts(served)
    if len(body.inputs) > MAX_INPUTS:
        raise bad_request("inputs", f"inputs: {len(body.inputs):,} exceed the limit {MAX_INPUTS}")
    for text in body.inputs:
        check_length("inputs", len(text), limits)
    found = served.run.predict(
        body.inputs,
        beams=body.beams,
        length_penalty=body.length_penalty,
        temperature=body.temperature,
        seed=body.seed % 2**63,
        unknown=body.unknown,
    )
    predictor = served.run.predictor()
    return schemas.PredictResponse(
        predictions=[
            schemas.PredictedTarget(
                input=each.input,
                target=each.target,
                probability=each.probability,
                alternatives=[
                    schemas.TargetAlternative(target=target, probability=probability)
                    for target, probability in each.alternatives
                ],
                attention=_attention(predictor, each) if body.attention else None,
            )
            for each in found
        ]
    )


def check_predicts(served: ServedModel) -> None:
    """Raise ApiError (400) where a model predicts no targets."""
    if served.run.kind != "examples":
        raise bad_request("model", f"{served.name} continues text and predicts no targets")


def _attention(predictor: Predictor, prediction: Prediction) -> schemas.TargetAttention | None:
    """Return which tokens of the input each token of the target attends to, as the mean of all
    heads of the last layer; None for models without such attention."""
    model, label = predictor.model, predictor.tokenizer.label
    if not isinstance(model, EncoderDecoder):
        return None
    source = prediction.source_ids
    tokens = torch.from_numpy(np.concatenate([source, prediction.ids]).astype(np.int64))[None]
    map_DI = model.cross_attention(tokens)[-1].mean(0)
    return schemas.TargetAttention(
        input=list(map(label, source[:-1].tolist())),
        target=list(map(label, prediction.ids.tolist())),
        weights=map_DI[:-1].tolist(),
    )


@cached_per_model
def find_mistakes(served: ServedModel) -> schemas.MistakesResponse:
    """Return how good the predictions for some examples of the validation split are, and the most
    confident wrong ones."""
    check_predicts(served)
    if not served.run.has_data:
        raise ApiError(400, f"the data of {served.name} are not available here")
    predicted = served.run.predict_split(served.run.split("val"), NUM_EXAMPLES, search=Search())
    pairs = list(zip(predicted.predictions, predicted.targets, strict=True))
    wrong = sorted(
        (pair for pair, is_right in zip(pairs, predicted.is_right, strict=True) if not is_right),
        key=lambda pair: -pair[0].probability,
    )
    table = None
    if served.run.record.data.targets == "label":
        counts = confusion(predicted.predictions, predicted.targets)
        totals: Counter[str] = Counter()
        for pair, count in counts.items():
            totals.update(dict.fromkeys(pair, count))
        labels = sorted(label for label, _ in totals.most_common(MAX_LABELS))
        rows = [[counts[row, column] for column in labels] for row in labels]
        table = schemas.Confusion(labels=labels, counts=rows)
    return schemas.MistakesResponse(
        examples=len(pairs),
        wrong=len(wrong),
        confusion=table,
        mistakes=[
            schemas.Mistake(
                input=p.input, target=target, predicted=p.target, probability=p.probability
            )
            for p, target in wrong[:MAX_MISTAKES]
        ],
        inputs=[p.input for p, _ in pairs[:8]],
    )
