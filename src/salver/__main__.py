"""`python -m salver` is the `salver` command."""

from salver.cli.main import main

main()
