"""The trace context, where there is one."""

import subprocess
import sys

import pytest

from salver.telemetry.traces import get_trace_context


def test_nothing_is_imported_to_find_that_nothing_is_traced() -> None:
    code = (
        "import sys; from salver.telemetry.traces import get_trace_context; "
        "assert get_trace_context() is None; assert not [each for each in sys.modules if 'opentelemetry' in each]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_the_current_context_of_opentelemetry_is_returned_and_none_for_an_empty_one() -> None:
    context = pytest.importorskip("opentelemetry.context")
    assert get_trace_context() is None
    token = context.attach(context.set_value("key", "value"))
    assert context.get_value("key", get_trace_context()) == "value"
    context.detach(token)
    assert get_trace_context() is None
