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
            if kept or _says_all(each.exc_type or Exception):
                each.stack = traceback.StackSummary.from_list(kept)
            waiting += [each.__cause__, each.__context__, *(each.exceptions or ())]


def _says_all(kind: type[BaseException]) -> bool:
    """Whether an error with no frame of the user's needs none to be understood.

    So it is with code that could not even begin, and with errors of Salver's own types, whose message says what to do.
    Any other is our own mistake, and its frames are what finds it.
    """
    return issubclass(kind, SyntaxError) or kind.__module__.partition(".")[0] == __name__.partition(".")[0]
