"""A simulation of many painters and the one thing they share: who hands out rows, or the store of jobs.

    python -m benchmarks.scale_simulation check  --one 104.0 --two 53.0 --rows 200 --seconds 0.5
    python -m benchmarks.scale_simulation batch   --picture 2.0 --handing-out 0.0002
    python -m benchmarks.scale_simulation service --picture 2.0 --operation 0.004 --writers 4

Events in time, nothing else: a painter asks what is shared for work and waits its turn, paints, and reports. `check`
takes what was measured with one painter, says what two should take, and compares that with what they took.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from dataclasses import dataclass
from itertools import count

MOST_OFF = 0.15
SPREAD = 0.05  # of the time that a picture takes


@dataclass(frozen=True)
class World:
    painters: int
    pictures: int
    picture_seconds: float  # of one painter, with all that it does alone
    operation_seconds: float  # of what is shared
    operations: int = 1  # on it, for each picture
    writers: int = 1  # operations that go on at once there
    start_seconds: float = 0.0  # of each painter


@dataclass(frozen=True)
class Simulated:
    seconds: float  # from the first picture's end to the last one's
    busy: float  # of the shared thing, 0 to 1
    idle: float  # of the painters, 0 to 1

    def rate(self, pictures: int) -> float:
        """Pictures a second."""
        return pictures / self.seconds if self.seconds else float("inf")


@dataclass
class _Shared:
    """Does so many operations at once, in the order in which they come."""

    seconds: float
    free_at: list[float]  # of each writer
    used: float = 0.0

    def done_at(self, now: float) -> float:
        done = max(now, heapq.heappop(self.free_at)) + self.seconds
        heapq.heappush(self.free_at, done)
        self.used += self.seconds
        return done


def simulated(world: World, seed: int = 1) -> Simulated:
    """One run to its end. An event is (when, which, operations that are left before this painter paints)."""
    rng, numbers = random.Random(seed), count()
    shared = _Shared(world.operation_seconds, [0.0] * world.writers)
    left, painting, ends = world.pictures, 0.0, list[float]()
    events = [(world.start_seconds, next(numbers), world.operations) for _ in range(world.painters)]
    while events:
        now, _, operations = heapq.heappop(events)
        if operations:
            heapq.heappush(events, (shared.done_at(now), next(numbers), operations - 1))
        elif left:
            left -= 1
            took = world.picture_seconds * rng.uniform(1 - SPREAD, 1 + SPREAD)
            painting += took
            ends.append(now + took)
            heapq.heappush(events, (now + took, next(numbers), world.operations))
    whole = max(ends) - world.start_seconds
    return Simulated(
        seconds=max(ends) - min(ends),
        busy=min(1.0, shared.used / (whole * world.writers)),
        idle=1 - painting / (whole * world.painters),
    )


def check(one: float, two: float, rows: int, handing_out: float) -> bool:
    """`one` and `two`: seconds that were measured from the first row to the last."""
    alone = one / (rows - 1) - handing_out  # what a row takes a painter, all told
    seconds = simulated(World(2, rows, alone, handing_out)).seconds
    off = seconds / two - 1
    print(f"two painters: {seconds:.1f} s simulated, {two:.1f} s measured ({off:+.1%})")
    return abs(off) <= MOST_OFF


def table(picture: float, operation: float, operations: int, writers: int) -> None:
    print("painters  pictures/s  painters idle  shared thing busy")
    for painters in (1, 2, 8, 32, 128, 512, 1024):
        pictures = painters * 40
        found = simulated(World(painters, pictures, picture, operation, operations, writers))
        print(f"{painters:8} {found.rate(pictures):11.2f} {found.idle:14.0%} {found.busy:18.0%}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "batch", "service"])
    parser.add_argument("--one", type=float, help="seconds measured with one painter")
    parser.add_argument("--two", type=float, help="and with two")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--picture", type=float, default=2.0, help="seconds of a picture")
    parser.add_argument("--handing-out", type=float, default=0.0002, help="seconds of a row")
    parser.add_argument("--operation", type=float, default=0.004, help="seconds of a transaction")
    parser.add_argument("--operations", type=int, default=9, help="transactions of a job")
    parser.add_argument("--writers", type=int, default=1, help="transactions at once")
    given = parser.parse_args()
    if given.what == "check":
        return 0 if check(given.one, given.two, given.rows, given.handing_out) else 1
    if given.what == "batch":
        table(given.picture, given.handing_out, 1, 1)
    else:
        table(given.picture, given.operation, given.operations, given.writers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
