"""Small models of every family."""

from moreish.settings import Tree

GPT: Tree = {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 32, "dropout": 0.2}
HIDDEN: Tree = {"hidden": 12, "embedding": 6}

FAMILIES: dict[str, Tree] = {
    "bigram": {"name": "bigram"},
    "mlp": {"name": "mlp", **HIDDEN, "context": 3},
    "bow": {"name": "bow", "context": 8},
    "rnn": {"name": "rnn", "dropout": 0.2, "width": 12},
    "gru": {"name": "gru", "dropout": 0.2, "width": 12},
    "lstm": {"name": "lstm", "dropout": 0.2, "width": 12},
    "wavenet": {"name": "wavenet", "layers": 3, "width": 12},
    "gpt": GPT,
    "gpt-ngrams": {**GPT, "positions": "rotary", "ngram_embedding": 3, "ngram_embedding_rows": 64},
    "mixture": {"name": "mixture", "network": {"name": "mlp", **HIDDEN, "context": 3}},
    "hybrid": {"name": "hybrid", "network": GPT, "counts": {"order": 4}, "folds": 4},
    "hybrid-memory": {
        "name": "hybrid", "network": GPT, "counts": {"order": 4}, "folds": 4, "memory": 100,
    },
    "hybrid-lstm": {"name": "hybrid", "network": {"name": "lstm", "width": 12}, "folds": 4},
}  # fmt: skip
"""Those that are trained by gradients."""

COUNTS: dict[str, Tree] = {"ngram": {"name": "ngram"}, "kneser-ney": {"name": "kneser-ney"}}
"""Those that count."""
