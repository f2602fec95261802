"""Problems of a text, found before training."""

from moreish.data.audit.audit import PER_PARAMETER, Diagnosis, diagnose, examine
from moreish.data.audit.checks import Finding

__all__ = ["PER_PARAMETER", "Diagnosis", "Finding", "diagnose", "examine"]
