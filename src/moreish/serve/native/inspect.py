"""Computations behind the views of the page; they run in the background executor.

Shape suffixes: M selected tokens, T time, C width, V vocabulary, N tokens of a split.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from moreish import evaluate
from moreish.data import TokenDataset
from moreish.errors import MoreishError
from moreish.generate import sampling_probabilities
from moreish.models import LONGEST_CONTEXT, GPTConfig, NetworkWithCountsConfig
from moreish.runs import MAX_SEARCHABLE_TOKENS, Run
from moreish.serve.http import ApiError, Limits, bad_request
from moreish.serve.native import schemas
from moreish.serve.openai import encode_prompt, encode_remembered
from moreish.serve.registry import ServedModel
from moreish.tokenizers import Tokenizer

MAX_SURPRISAL_OPERATIONS = 40_000_000_000
"""Multiplications for a text whose tokens are all scored: a few seconds on one core."""

MAX_ATTENTION_TOKENS = 256
MAX_EMBEDDED_TOKENS = 500
MAX_PAIR_TOKENS = 30
MAX_LOGGED_STEPS = 2000
MAX_NEIGHBORS = 8
"""The sizes of the views."""

T = TypeVar("T")


def cached_per_model(compute: Callable[[ServedModel], T]) -> Callable[[ServedModel], T]:
    """Compute a result once for each served model, and keep it as long as that is served."""
    results: WeakKeyDictionary[ServedModel, T] = WeakKeyDictionary()

    def cached(served: ServedModel) -> T:
        if served not in results:
            results[served] = compute(served)
        return results[served]

    return cached


def describe_model(served: ServedModel, limits: Limits) -> schemas.ModelInfo:
    """Describe a run and its views; its data may have been removed since it was loaded."""
    run, record = served.run, served.run.record
    config = run.config.model
    network = config.network if isinstance(config, NetworkWithCountsConfig) else config
    gpt = network if isinstance(network, GPTConfig) else None
    has_data = run.has_data
    is_text = run.kind != "examples"
    train, val = (run.scores[n].as_json() if n in run.scores else {} for n in ("train", "val"))
    return schemas.ModelInfo(
        name=served.name,
        kind=run.kind,
        targets=record.data.targets,
        architecture=config.name,
        parameters=run.model.num_parameters(),
        tokenizer=run.tokenizer.name,
        vocabulary=run.tokenizer.vocab_size,
        context=run.model.context,
        memory=run.memory,
        remember_characters=min(limits.prompt_characters, _memory_characters(served)),
        layers=None if gpt is None else gpt.layers,
        heads=None if gpt is None else gpt.heads,
        data=record.data.name,
        documents=record.data.documents,
        characters=record.data.characters,
        losses=schemas.SplitLosses(train=train.get("loss"), val=val.get("loss")),
        bits_per_byte=val.get("bits_per_byte"),
        has=schemas.Capabilities(
            data=has_data,
            attention=gpt is not None and is_text,
            embedding=is_text
            and evaluate.token_embedding(run.model, run.tokenizer.vocab_size) is not None,
            pairs=has_data and is_text,
            novelty=has_data and is_text and _data_size(served) <= MAX_SEARCHABLE_TOKENS,
            history=next(run.read_metrics(), None) is not None,
        ),
    )


@cached_per_model
def _memory_characters(served: ServedModel) -> int:
    """Return the number of last characters of a text that fill the memory of a model."""
    run = served.run
    return run.memory and (run.memory + LONGEST_CONTEXT) * int(run.tokenizer.char_lengths().max())


def training_tokens(served: ServedModel) -> TokenDataset:
    """Return the training split.

    Raises:
        ApiError: the data are not available (400).
    """
    try:
        # Load all splits, since novelty and `known` search all of them.
        splits = {name: served.run.split(name) for name in served.run.split_names}
        return splits["train"]
    except (MoreishError, KeyError):
        message = f"the training data of {served.name} are not available here"
        raise ApiError(400, message) from None


def check_searchable(served: ServedModel) -> None:
    """Check that texts can be looked up in the training data.

    Raises:
        ApiError: the data are not available or too large (400).
    """
    training_tokens(served)
    if (size := _data_size(served)) > MAX_SEARCHABLE_TOKENS:
        raise ApiError(
            400,
            f"the training data of {served.name} have {size:,} characters; at most "
            f"{MAX_SEARCHABLE_TOKENS:,} are searched here",
        )


def _data_size(served: ServedModel) -> int:
    facts = served.run.record.data
    return max(facts.characters, facts.tokens.get("train", 0))


@lru_cache(maxsize=1 << 16)
def render_token(tokenizer: Tokenizer, token: int, previous: int | None) -> schemas.RenderedToken:
    """Return what a token adds to a text after `previous`, and its printable label."""
    try:
        text = tokenizer.decode_bytes(np.array([token]), previous).decode()
    except UnicodeDecodeError:
        text = None
    return schemas.RenderedToken(id=token, text=text, label=tokenizer.label(token))


def compute_surprisal(
    served: ServedModel, body: schemas.SurprisalRequest, limits: Limits
) -> schemas.SurprisalResponse:
    """Score every token of a text."""
    run, model = served.run, served.run.model
    check_length("text", len(body.text), limits)
    ids = encode_prompt(body.text, served, "text")
    per_token = sum(p.numel() for p in model.parameters()) + 16 * model.vocab_size
    if len(ids) > (limit := max(1, MAX_SURPRISAL_OPERATIONS // per_token)):
        message = f"text: {len(ids):,} tokens exceed this model's limit of {limit:,}"
        raise bad_request("text", message)
    encode_remembered(body, served, limits, ids)  # checks it
    unknown = body.remember_unknown  # the text itself has nothing that is unknown
    scored = run.surprisal(body.text, unknown=unknown, remember=body.remember or "")
    nats, token_ids = sum(token.nats for token in scored), [token.id for token in scored]
    bits = math.nan  # the length of unknown words is not known
    if run.tokenizer.unk_id not in token_ids:
        lengths = run.tokenizer.char_lengths()[token_ids]
        characters = int((lengths - run.tokenizer.implied_spaces(np.array(token_ids))).sum())
        bits = nats / math.log(2) / max(1, characters)
    return schemas.SurprisalResponse(
        tokens=[
            schemas.ScoredToken(
                **dict(render_token(run.tokenizer, token.id, previous)), nats=token.nats
            )
            for previous, token in zip([None, *token_ids[:-1]], scored, strict=True)
        ],
        nats_per_token=nats / len(scored),
        bits_per_character=bits,
    )


def predict_next(
    served: ServedModel, body: schemas.NextRequest, limits: Limits
) -> schemas.NextResponse:
    """Compute the probabilities of the token after a prompt, before and after the sampling
    settings."""
    run, model = served.run, served.run.model
    check_length("prompt", len(body.prompt), limits)
    prompt = encode_prompt(body.prompt, served)
    ids = np.concatenate([encode_remembered(body, served, limits, prompt), prompt])
    ids_1T, state = model.skip_to_end(torch.from_numpy(ids)[None])
    logits_1V = model(ids_1T, state)[0][:, -1].float()
    if (unk := run.tokenizer.unk_id) is not None:
        logits_1V = logits_1V.index_fill(1, torch.tensor([unk]), -torch.inf)
    p_V = logits_1V.double().softmax(dim=-1)[0]
    q_V = sampling_probabilities(logits_1V.double(), body.sampling)[0]
    best = p_V.topk(min(body.top, len(p_V))).indices
    rest_V = torch.ones_like(p_V, dtype=torch.bool).index_fill(0, best, False)
    return schemas.NextResponse(
        tokens=[
            schemas.NextToken(
                **dict(render_token(run.tokenizer, token, int(ids[-1]))),
                p=float(p_V[token]),
                q=float(q_V[token]),
            )
            for token in best.tolist()
        ],
        rest=schemas.Probabilities(p=float(p_V[rest_V].sum()), q=float(q_V[rest_V].sum())),
        vocabulary=len(p_V),
    )


def compute_attention(
    served: ServedModel, body: schemas.AttentionRequest, limits: Limits
) -> schemas.AttentionResponse:
    """Compute the attention weights of one layer for the last tokens of a text."""
    run = served.run
    if (network := evaluate.find_transformer(run.model)) is None:
        raise bad_request("model", f"{served.name} has no attention: it is not a GPT")
    layers = len(network.blocks)
    if body.layer >= layers:
        message = f"layer: {body.layer} does not exist; the model has {layers}, counted from 0"
        raise bad_request("layer", message)
    check_length("text", len(body.text), limits)
    ids = encode_prompt(body.text, served, "text")
    all_ids = np.concatenate([run.initial_context(ids), ids])
    ids_T = all_ids[-min(MAX_ATTENTION_TOKENS, network.context) :]
    maps_HTT = evaluate.attention_maps(run.model, ids_T)[body.layer]
    return schemas.AttentionResponse(
        tokens=[run.tokenizer.label(int(token)) for token in ids_T],
        total=len(all_ids),
        layers=layers,
        heads=len(maps_HTT),
        maps=np.round(maps_HTT.double().numpy(), 4).tolist(),
    )


def project_embedding(served: ServedModel) -> schemas.EmbeddingResponse:
    """Project the embeddings of the most frequent tokens to two principal components."""
    run = served.run
    weight_VC = evaluate.token_embedding(run.model, run.tokenizer.vocab_size)
    if weight_VC is None:
        raise bad_request("model", f"{served.name} has no embedding")
    counts_V = None
    with suppress(ApiError):
        counts_V = _token_counts(served)
    order_V = (
        np.arange(len(weight_VC)) if counts_V is None else evaluate.tokens_by_frequency(counts_V)
    )
    ids_M = order_V[:MAX_EMBEDDED_TOKENS]
    points_M2, shares = evaluate.principal_components(weight_VC[ids_M])
    neighbors_M = _nearest_neighbors(weight_VC[ids_M])
    return schemas.EmbeddingResponse(
        tokens=[
            schemas.EmbeddedToken(
                id=int(token),
                label=run.tokenizer.label(int(token)),
                x=float(x),
                y=float(y),
                count=None if counts_V is None else int(counts_V[token]),
                neighbors=neighbors,
            )
            for token, (x, y), neighbors in zip(ids_M, points_M2, neighbors_M, strict=True)
        ],
        explained_variance_ratio=(float(shares[0]), float(shares[1])),
    )


def _nearest_neighbors(weight_MC: NDArray[np.floating]) -> list[list[schemas.Neighbor]]:
    """Return for each embedding those with the largest cosine similarity to it."""
    norms_M1 = np.linalg.norm(weight_MC, axis=1, keepdims=True)
    unit_MC = weight_MC / np.maximum(norms_M1, 1e-12)
    similarity_MM = unit_MC @ unit_MC.T
    np.fill_diagonal(similarity_MM, -np.inf)
    count = min(MAX_NEIGHBORS, len(unit_MC) - 1)
    return [
        [
            schemas.Neighbor(index=int(index), similarity=float(row_M[index]))
            for index in np.argsort(-row_M, kind="stable")[:count]
        ]
        for row_M in similarity_MM
    ]


@cached_per_model
def count_pairs(served: ServedModel) -> schemas.PairsResponse:
    """Count which token follows which in the training data, and compute the model's
    probabilities."""
    run, size = served.run, served.run.tokenizer.vocab_size
    ids_N = training_tokens(served).ids_N[:MAX_SEARCHABLE_TOKENS]
    ids_M = np.sort(evaluate.tokens_by_frequency(_token_counts(served))[:MAX_PAIR_TOKENS])
    return schemas.PairsResponse(
        labels=[run.tokenizer.label(int(token)) for token in ids_M],
        totals=_token_counts(served)[ids_M].tolist(),
        counts=evaluate.bigram_counts(ids_N, ids_M, size).tolist(),
        expected=evaluate.bigram_probabilities(run.model, ids_M).tolist(),
    )


@cached_per_model
def _token_counts(served: ServedModel) -> Any:
    """Return (V,) how often another token follows each token."""
    ids_N = training_tokens(served).ids_N[:MAX_SEARCHABLE_TOKENS]
    return evaluate.context_counts(ids_N, served.run.tokenizer.vocab_size)


def read_history(run: Run) -> schemas.HistoryResponse:
    """Return what a training run has logged so far, with fewer steps where there are many."""
    config = run.config
    logged = list(run.read_metrics())
    steps = [entry for entry in logged if "loss" in entry]
    per_step = steps[-1]["tokens"] / steps[-1]["step"] if steps else config.train.batch_tokens
    stride = max(1, math.ceil(len(steps) / MAX_LOGGED_STEPS))
    evaluations = [entry for entry in logged if "val" in entry]
    last: dict[str, Any] = evaluations[-1]["val"] if evaluations else {}
    has_ratio = last.get("loss") and last.get("bits_per_byte") is not None
    return schemas.HistoryResponse(
        steps=[schemas.LoggedStep(step=e["step"], loss=e["loss"]) for e in steps[::stride]],
        evaluations=[
            schemas.LoggedEvaluation(step=e["step"], train=None, val=e["val"]["loss"])
            for e in evaluations
        ],
        samples=[
            schemas.LoggedSample(step=e["step"], text="\n".join(e["samples"]))
            for e in logged
            if "samples" in e
        ],
        settings=config.model_dump(mode="json", include={"model", "train"}),
        tokens_per_step=round(per_step),
        bits_per_byte=last["bits_per_byte"] / last["loss"] if has_ratio else None,
    )


served_history = cached_per_model(lambda served: read_history(served.run))


def check_length(param: str, size: int, limits: Limits) -> None:
    """Check the length of a text against the limit.

    Raises:
        ApiError: it is too long (400).
    """
    if size > (limit := limits.prompt_characters):
        raise bad_request(param, f"{param}: {size:,} characters exceed the limit of {limit:,}")
