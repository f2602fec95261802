"""The audit of a text: problems that are better found before training."""

from moreish.data.audit.audit import AuditReport, audit_corpus, audit_source
from moreish.data.audit.checks import Finding
from moreish.data.audit.examples import audit_examples
