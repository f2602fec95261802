"""The audit of a text: problems that are better found before training."""

from moreish.data.audit.audit import TOKENS_PER_PARAMETER, AuditReport, audit_corpus, audit_source
from moreish.data.audit.checks import Finding
