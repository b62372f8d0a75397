"""Traces: the current context of OpenTelemetry, where somebody uses it."""

import sys
from typing import Any


def get_trace_context() -> Any:
    """Return OpenTelemetry's current context, as the parent of spans of one's own, or None where nothing is traced.

    OpenTelemetry is never imported for this: code that traces has imported it.
    """
    context = sys.modules.get("opentelemetry.context")
    return None if context is None else context.get_current() or None
