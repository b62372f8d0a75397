"""Tracebacks as users want them: their own frames, whole."""

import importlib
import os
import traceback

_PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OURS = ("<frozen importlib", os.path.dirname(os.path.abspath(importlib.__file__)) + os.sep, _PACKAGE_DIR + os.sep)


def user_traceback(error: BaseException) -> str:
    """Return a traceback without the frames of Salver and of importlib that lead to the user's code.

    It can always be encoded as UTF-8, whatever the error's text is.
    """
    try:
        report = traceback.TracebackException.from_exception(error)
        _drop_our_frames(report)
        text = "".join(report.format())
    except Exception as problem:  # noqa: BLE001 - attributes of the user's exceptions are the user's code
        text = f"{type(error).__name__} (its traceback cannot be shown: {type(problem).__name__})"
    return encodable(text.rstrip())


def encodable(text: str) -> str:
    """Return the text with what UTF-8 has no bytes for (lone surrogates) written as escapes."""
    return text.encode(errors="backslashreplace").decode()


def _drop_our_frames(report: traceback.TracebackException) -> None:
    # No recursion: a loop that tries again can chain more exceptions than the stack is deep.
    waiting: list[traceback.TracebackException | None] = [report]
    while waiting:
        each = waiting.pop()
        if each is not None:
            kept = [frame for frame in each.stack if not frame.filename.startswith(_OURS)]
            # What has no frame of the user's is our own mistake, but for code that could not even begin.
            if kept or issubclass(each.exc_type or Exception, SyntaxError):
                each.stack = traceback.StackSummary.from_list(kept)
            waiting += [each.__cause__, each.__context__, *(each.exceptions or ())]
