"""The command group."""

import click

from salver.cli.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="salver", prog_name="salver")
def main() -> None:
    """Serve Python models and business logic over HTTP.

    \b
    Examples:
      salver run main:app                 serve `app` of main.py at http://127.0.0.1:8000/
      salver run main:app --reload        and again whenever a file changes
      salver run path/to/file.py:build size=small
    """


main.add_command(run)
