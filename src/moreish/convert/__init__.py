"""Exports models to other libraries, and imports models from them."""

from moreish.convert.export import export
from moreish.convert.hf_import import (
    checkpoint_digest,
    gpt2_settings,
    import_hf,
    load_model_settings,
    resolve_model_folder,
)
from moreish.convert.pt_import import describe_import, import_pt
