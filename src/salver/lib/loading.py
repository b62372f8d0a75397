"""Whether user code is being imported now: what it asks for at that time must start nothing."""


class _Current:
    loading: str | None = None


def set_loading(what: str | None) -> None:
    """Say what is being imported, or None when that is over."""
    _Current.loading = what


def loading() -> str | None:
    """Return what is being imported, or None."""
    return _Current.loading
