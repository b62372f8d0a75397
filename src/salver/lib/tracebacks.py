"""Tracebacks as users want them: their own frames, whole."""

import os
import traceback

_PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OURS = ("<frozen importlib", _PACKAGE_DIR + os.sep)


def user_traceback(error: BaseException) -> str:
    """Return a traceback without the frames of Salver and of importlib that lead to the user's code.

    It can always be encoded as UTF-8, whatever the error's text is.
    """
    report = traceback.TracebackException.from_exception(error)
    _drop_our_frames(report)
    return encodable("".join(report.format()).rstrip())


def encodable(text: str) -> str:
    """Return the text with what UTF-8 has no bytes for (lone surrogates) written as escapes."""
    return text.encode(errors="backslashreplace").decode()


def _drop_our_frames(report: traceback.TracebackException) -> None:
    kept = [frame for frame in report.stack if not frame.filename.startswith(_OURS)]
    if kept:
        report.stack = traceback.StackSummary.from_list(kept)
    for other in (report.__cause__, report.__context__, *(report.exceptions or ())):
        if other is not None:
            _drop_our_frames(other)
