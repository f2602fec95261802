"""The hybrid of counts, a memory of recent text, and a network."""

from moreish.models.hybrid.config import HybridConfig
from moreish.models.hybrid.model import MAX_FOLD_TOKENS, Hybrid, forgets
