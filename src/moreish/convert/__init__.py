"""Models that go to other programs, or come from them."""

from moreish.convert.export import Exported, export
from moreish.convert.hf_import import content_of, described, described_by_name, fetched, import_hf
from moreish.convert.pt_import import describe, import_pt

__all__ = [
    "Exported",
    "content_of",
    "describe",
    "described",
    "described_by_name",
    "export",
    "fetched",
    "import_hf",
    "import_pt",
]
