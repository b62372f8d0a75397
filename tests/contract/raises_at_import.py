"""A user's module that cannot be imported; the contract looks for this very line in the error."""

raise LookupError("no weights on purpose")
