"""What is looked at in a served model: the work of the native routes, done on the side.

M some tokens, T time, C width.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch

from moreish.data import TokenDataset
from moreish.errors import MoreishError
from moreish.evaluate import (
    attention_maps,
    bigram_counts,
    bigram_probabilities,
    context_counts,
    find_transformer,
    principal_components,
    token_embedding,
    tokens_by_frequency,
)
from moreish.generate import sampling_probabilities
from moreish.models import GPTConfig, NetworkWithCountsConfig
from moreish.runs import MAX_SEARCHABLE_TOKENS, Run
from moreish.serve.http import ApiError, Limits, bad_request
from moreish.serve.native import schemas as shapes
from moreish.serve.openai import encode_prompt
from moreish.serve.registry import ServedModel
from moreish.tokenizers import Tokenizer

MAX_SURPRISAL_OPERATIONS = 40_000_000_000
"""Multiplications for one text whose tokens are all scored: a few seconds of one core."""

MAX_ATTENTION_TOKENS = 256
"""TokenDataset whose attention is shown."""

MAX_EMBEDDED_TOKENS = 500
"""TokenDataset whose embedding is shown."""

MAX_PAIR_TOKENS = 30
"""TokenDataset whose pairs are shown."""

MAX_LOGGED_STEPS = 2000
"""Steps of a training that are shown."""

T = TypeVar("T")


def cached_per_model(work: Callable[[ServedModel], T]) -> Callable[[ServedModel], T]:
    """`work`, done once for each run."""
    found: WeakKeyDictionary[ServedModel, T] = WeakKeyDictionary()

    def remembered(served: ServedModel) -> T:
        if served not in found:
            found[served] = work(served)
        return found[served]

    return remembered


def describe_model(served: ServedModel) -> shapes.ModelInfo:
    """What a run is, and what can be looked at in it now: its data may have gone meanwhile."""
    told = _described(served)
    if not told.has.data or served.run.has_data:
        return told
    has = told.has.model_copy(update={"data": False, "pairs": False, "novelty": False})
    return told.model_copy(update={"has": has})


@cached_per_model
def _described(served: ServedModel) -> shapes.ModelInfo:
    """The same, if its data are still there."""
    run, record = served.run, served.run.record
    config = run.config.model
    network = config.network if isinstance(config, NetworkWithCountsConfig) else config
    gpt = network if isinstance(network, GPTConfig) else None
    data = bool(run.split_names)
    val = record.splits.get("val")
    train = record.splits.get("train")
    return shapes.ModelInfo(
        name=served.name,
        kind=run.kind,
        architecture=config.name,
        parameters=run.model.num_parameters(),
        tokenizer=run.tokenizer.name,
        vocabulary=run.tokenizer.vocab_size,
        context=run.model.context,
        layers=None if gpt is None else gpt.layers,
        heads=None if gpt is None else gpt.heads,
        data=record.data.name,
        losses=shapes.SplitLosses(
            train=None if train is None else train.loss, val=None if val is None else val.loss
        ),
        bits_per_byte=None if val is None else val.bits_per_byte,
        has=shapes.Capabilities(
            data=data,
            attention=gpt is not None,
            embedding=token_embedding(run.model, run.tokenizer.vocab_size) is not None,
            pairs=data,
            novelty=data and _characters(served) <= MAX_SEARCHABLE_TOKENS,
            history=next(run.read_metrics(), None) is not None,
        ),
    )


def training_tokens(served: ServedModel) -> TokenDataset:
    """Raises ApiError (400) where they, or what they were split from, are not at hand."""
    try:
        # All of them, and then they are held: what is known stands on whatever side of the split.
        splits = {name: served.run.split(name) for name in served.run.split_names}
        return splits["train"]
    except (MoreishError, KeyError):
        raise ApiError(400, f"the training data of {served.name} are not at hand here") from None


def check_searchable(served: ServedModel) -> None:
    """Raises ApiError (400) where nothing can be looked up in the training data."""
    training_tokens(served)
    if (size := _characters(served)) > MAX_SEARCHABLE_TOKENS:
        raise ApiError(
            400,
            f"the training data of {served.name} are {size:,} characters; only "
            f"{MAX_SEARCHABLE_TOKENS:,} or fewer are looked through here",
        )


def _characters(served: ServedModel) -> int:
    facts = served.run.record.data
    return max(facts.characters, facts.tokens.get("train", 0))


@lru_cache(maxsize=1 << 16)
def render_token(tokenizer: Tokenizer, token: int) -> shapes.RenderedToken:
    """A token as the page shows it."""
    try:
        text = tokenizer.decode_bytes(np.array([token])).decode()
    except UnicodeDecodeError:
        text = None
    return shapes.RenderedToken(id=token, text=text, label=tokenizer.label(token))


def surprisal(
    served: ServedModel, asked: shapes.SurprisalRequest, limits: Limits
) -> shapes.SurprisalResponse:
    """Every token of a text, and how little it was expected."""
    run, model = served.run, served.run.model
    check_length("text", len(asked.text), limits)
    ids = encode_prompt(asked.text, served, "text")
    each = sum(p.numel() for p in model.parameters()) + 16 * model.vocab_size
    if len(ids) > (most := max(1, MAX_SURPRISAL_OPERATIONS // each)):
        raise bad_request(
            "text", f"text: {len(ids):,} tokens are more than {most:,}, the most here"
        )
    found = run.surprisal(asked.text)
    nats, of_text = sum(token.nats for token in found), [token.id for token in found]
    bits = math.nan  # of unknown words nobody knows how long they are
    if run.tokenizer.unk_id not in of_text:
        bits = nats / math.log(2) / max(1, int(run.tokenizer.char_lengths()[of_text].sum()))
    return shapes.SurprisalResponse(
        tokens=[
            shapes.TokenSurprisal(
                **dict(render_token(run.tokenizer, token.id)), nats=_finite(token.nats)
            )
            for token in found
        ],
        nats_per_token=_finite(nats / len(found)),
        bits_per_character=_finite(bits),
    )


def predict_next(
    served: ServedModel, asked: shapes.NextRequest, limits: Limits
) -> shapes.NextResponse:
    """What may come after a prompt, as the model says and as it is drawn."""
    run, model = served.run, served.run.model
    check_length("prompt", len(asked.prompt), limits)
    prompt = encode_prompt(asked.prompt, served)
    read = np.concatenate([run.lead(prompt), prompt])[-(model.max_length or model.context) :]
    logits_1V = model(torch.from_numpy(read)[None])[0][:, -1].float()
    if (never := run.tokenizer.unk_id) is not None:
        logits_1V = logits_1V.index_fill(1, torch.tensor([never]), -torch.inf)
    p_V = logits_1V.double().softmax(dim=-1)[0]
    q_V = sampling_probabilities(logits_1V.double(), asked.sampling)[0]
    best = p_V.topk(min(asked.top, len(p_V))).indices
    rest_V = torch.ones_like(p_V, dtype=torch.bool).index_fill(0, best, False)
    return shapes.NextResponse(
        tokens=[
            shapes.NextToken(**dict(render_token(run.tokenizer, token)), p=p, q=q)
            for token, p, q in zip(
                best.tolist(), p_V[best].tolist(), q_V[best].tolist(), strict=True
            )
        ],
        rest=shapes.ProbabilityPair(p=float(p_V[rest_V].sum()), q=float(q_V[rest_V].sum())),
        vocabulary=len(p_V),
    )


def attention(
    served: ServedModel, asked: shapes.AttentionRequest, limits: Limits
) -> shapes.AttentionResponse:
    """Where each token of a text looks, in one layer."""
    run = served.run
    if (network := find_transformer(run.model)) is None:
        raise bad_request(
            "model", f"{served.name} does not attend: it is no GPT, and has none in it"
        )
    layers = len(network.blocks)
    if asked.layer >= layers:
        raise bad_request("layer", f"layer: {asked.layer} is none of its {layers}, counted from 0")
    check_length("text", len(asked.text), limits)
    ids = encode_prompt(asked.text, served, "text")
    whole_T = np.concatenate([run.lead(ids), ids])
    ids_T = whole_T[-min(MAX_ATTENTION_TOKENS, network.context) :]
    maps_HTT = attention_maps(run.model, ids_T)[asked.layer]
    return shapes.AttentionResponse(
        tokens=[run.tokenizer.label(int(token)) for token in ids_T],
        total=len(whole_T),
        layers=layers,
        heads=len(maps_HTT),
        maps=np.round(maps_HTT.double().numpy(), 4).tolist(),
    )


def embedding(served: ServedModel) -> shapes.EmbeddingResponse:
    """The most frequent tokens, where the two widest axes of their vectors have them."""
    run = served.run
    weight_VC = token_embedding(run.model, run.tokenizer.vocab_size)
    if weight_VC is None:
        raise bad_request("model", f"{served.name} has no embedding")
    counts_V = None
    with suppress(ApiError):
        counts_V = _counts(served)
    order_V = np.arange(len(weight_VC)) if counts_V is None else tokens_by_frequency(counts_V)
    chosen_M = order_V[:MAX_EMBEDDED_TOKENS]
    points_M2, shares = principal_components(weight_VC[chosen_M])
    return shapes.EmbeddingResponse(
        tokens=[
            shapes.EmbeddedToken(
                id=int(token),
                label=run.tokenizer.label(int(token)),
                x=float(x),
                y=float(y),
                count=None if counts_V is None else int(counts_V[token]),
            )
            for token, (x, y) in zip(chosen_M, points_M2, strict=True)
        ],
        explained=(float(shares[0]), float(shares[1])),
    )


@cached_per_model
def pairs(served: ServedModel) -> shapes.PairsResponse:
    """What followed what in the training data, and what the model expects."""
    run, size = served.run, served.run.tokenizer.vocab_size
    ids_N = training_tokens(served).ids_N[:MAX_SEARCHABLE_TOKENS]
    chosen_M = np.sort(tokens_by_frequency(_counts(served))[:MAX_PAIR_TOKENS])
    return shapes.PairsResponse(
        labels=[run.tokenizer.label(int(token)) for token in chosen_M],
        totals=_counts(served)[chosen_M].tolist(),
        counts=bigram_counts(ids_N, chosen_M, size).tolist(),
        expected=bigram_probabilities(run.model, chosen_M).tolist(),
    )


@cached_per_model
def _counts(served: ServedModel) -> Any:
    """(V,) how often each token is followed by another."""
    ids_N = training_tokens(served).ids_N[:MAX_SEARCHABLE_TOKENS]
    return context_counts(ids_N, served.run.tokenizer.vocab_size)


@cached_per_model
def history(served: ServedModel) -> shapes.HistoryResponse:
    """What the training logged."""
    return training_history(served.run)


def training_history(run: Run) -> shapes.HistoryResponse:
    """What a training has logged so far, thinned out where it is much."""
    config = run.config
    logged = list(run.read_metrics())
    steps = [entry for entry in logged if "loss" in entry]
    learned = steps[-1]["tokens"] / steps[-1]["step"] if steps else config.train.batch_tokens
    every = max(1, math.ceil(len(steps) / MAX_LOGGED_STEPS))
    last: dict[str, Any] = next((e["val"] for e in reversed(logged) if "val" in e), {})
    known = last.get("loss") and last.get("bits_per_byte") is not None
    return shapes.HistoryResponse(
        steps=[shapes.LoggedStep(step=e["step"], loss=e["loss"]) for e in steps[::every]],
        evaluations=[
            shapes.LoggedEvaluation(step=e["step"], train=None, val=e["val"]["loss"])
            for e in logged
            if "val" in e
        ],
        samples=[
            shapes.LoggedSample(step=e["step"], text="\n".join(e["samples"]))
            for e in logged
            if "samples" in e
        ],
        settings={
            "model": config.model.model_dump(mode="json"),
            "train": config.train.model_dump(mode="json"),
        },
        tokens_per_step=round(learned),
        bits_per_byte=last["bits_per_byte"] / last["loss"] if known else None,
    )


def check_length(param: str, size: int, limits: Limits) -> None:
    """Raises ApiError (400) where a text is too long."""
    if size > limits.prompt_characters:
        raise bad_request(
            param, f"{param}: {size:,} characters are more than {limits.prompt_characters:,}"
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
