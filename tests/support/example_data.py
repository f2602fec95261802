"""Small files of examples."""

import json
from itertools import product
from pathlib import Path

WORDS = ["red", "green", "blue", "black", "white", "gold"]
TINY_ENCODER_DECODER = {"layers": 1, "encoder_layers": 1, "width": 16, "heads": 2}


def write_labels(path: Path) -> Path:
    """Write texts of three words, which are good if they begin with the first of the words."""
    rows = [f"{' '.join(words)},{'good' if words[0] == WORDS[0] else 'bad'}"
            for words in product(WORDS, repeat=3)]  # fmt: skip
    path.write_text("text,label\n" + "\n".join(rows))
    return path


def write_pairs(path: Path) -> Path:
    """Write pairs of words, and the same letters backward."""
    pairs = ["".join(words) for words in product(WORDS, repeat=2)]
    rows = [json.dumps({"prompt": pair, "completion": pair[::-1]}) for pair in pairs]
    path.write_text("\n".join(rows * 3))
    return path
