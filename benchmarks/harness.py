"""Paired runs: ours and the peer take turns, and the ratio is taken within each pair.

Other work on the machine slows both of a pair alike, so their ratio holds where times drift. Times
are those that the processor spent on the process and its children (user and system), unless a row
says wall clock.
"""

import ctypes
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """Median seconds of ours and of the peer, ratios by pair, and MiB of each beyond its input."""

    name: str
    peer: str
    ours_seconds: float
    peer_seconds: float
    ratios: list[float]
    bar: float | None
    ours_memory: float
    peer_memory: float
    equal: str
    clock: str = "CPU"

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def processor_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    spent = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(times.ru_utime + times.ru_stime for times in spent)


def compare(
    name: str,
    peer_name: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    check: Callable[[Any, Any], str],
    bar: float | None = None,
    pairs: int = 5,
    clock: str = "CPU",
    items: int = 1,
) -> Row:
    """Checks that both results are equal (`check` says how, or raises), then times them by turns.

    Seconds are given for one of `items` that a run works through.
    """
    equal = check(ours(), peer())
    now = processor_seconds if clock == "CPU" else time.perf_counter
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(pairs):
        turns = [("ours", ours), ("peer", peer)]
        for who, work in turns if number % 2 == 0 else reversed(turns):
            begun = now()
            work()
            seconds[who].append(now() - begun)
    ratios = [slow / fast for slow, fast in zip(seconds["peer"], seconds["ours"], strict=True)]
    medians = [statistics.median(values) / items for values in seconds.values()]
    memory = peak_memory(ours), peak_memory(peer)
    row = Row(name, peer_name, *medians, ratios, bar, *memory, equal, clock)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"{name} against {peer_name}: {row.ratio:.2f} ({spread})", flush=True)
    return row


def peak_memory(work: Callable[[], Any]) -> float:
    """Peak MiB by which a fresh copy of this process grows during the work (Linux; else NaN)."""
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(work, sender))
    process.start()
    sender.close()
    try:
        peak: float = receiver.recv()
    except EOFError:
        peak = float("nan")
    process.join()
    return peak


def _measure(work: Callable[[], Any], sender: Any) -> None:
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark of memory begins anew
    before = _status("VmRSS")
    work()
    sender.send((_status("VmHWM") - before) / 1024)
    sender.close()


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise ValueError(f"/proc/self/status has no {field}")
