"""Which of these seeds go wrong? ``python -m tests.simulation FIRST[..LAST] [--served] [--amqp] [--sqlite]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.simulation.ledger import Wrong
from tests.simulation.seeds import play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="one seed, or FIRST..LAST")
    parser.add_argument("--sqlite", action="store_true", help="over the real journal, in a temporary directory")
    parser.add_argument("--served", action="store_true", help="worlds of those who ask and answer by ZeroMQ")
    parser.add_argument("--amqp", action="store_true", help="worlds with AMQP clients beside all others")
    parser.add_argument("--trace", action="store_true", help="print the last events of every world, and the hash of all")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("..")
    wrong: list[int] = []
    counts: Counter[str] = Counter()
    began = time.perf_counter()
    for seed in range(int(first), int(last or first) + 1):
        try:
            with tempfile.TemporaryDirectory() as directory:
                world = play(seed, directory=Path(directory) if options.sqlite else None, served=options.served, amqp=options.amqp)
        except Wrong as error:
            wrong.append(seed)
            _say(error)
        else:
            counts.update(world.ledger.counts)
            if options.trace:
                _say("\n".join(world.ledger.tail), f"{seed}: {world.ledger.trace}")
    amount = int(last or first) - int(first) + 1
    _say(f"{amount} worlds in {time.perf_counter() - began:.1f} s, {len(wrong)} went wrong: {wrong}; {dict(counts)}")
    return bool(wrong)


def _say(*lines: object) -> None:
    sys.stdout.write("\n".join(map(str, lines)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
