"""What the documentation says is true: snippets and examples run, every option is described."""
