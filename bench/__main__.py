"""`python -m bench [startup] [replica_start] [throughput]`: print figures beside their goals."""

import sys

from rich.console import Console
from rich.table import Table

from bench.replica_start import replica_start
from bench.startup import startup
from bench.throughput import throughput

PARTS = {"startup": startup, "replica_start": replica_start, "throughput": throughput}


def main() -> None:
    """Run the parts named on the command line, or all."""
    names = sys.argv[1:] or list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.exit(f"No such benchmark: {', '.join(unknown)}. There are: {', '.join(PARTS)}.")
    table = Table("measured", "figure", "goal", title="Salver")
    for name in names:
        for row in PARTS[name]():
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
