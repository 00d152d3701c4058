"""The hot path alone: N snippets in one session; latency, and who spent how much processor time.

`python -m tests.bench.hotpath --count 2000` prints p50, p95 and p99 and the CPU per execution of
the broker, of the kernel and of this client. To be run before and after each change of that path.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import psutil

from tests.bench.lab import Mood
from tests.bench.ours import JSON, MSGPACK, broker
from tests.bench.report import Summary


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hotpath", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--code", default="1+1")
    parser.add_argument("--codec", choices=("msgpack", "json"), default="msgpack")
    parser.add_argument("--silent", action="store_true", help="no result, no history")
    parser.add_argument("--json-only", action="store_true", help="print JSON and nothing else")
    return parser.parse_args()


def processor_time(pids: dict[str, int]) -> dict[str, float]:
    """Return the seconds of processor time, user and system, of each process so far."""
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: spent.user + spent.system for name, spent in times.items()}


async def run(options: argparse.Namespace) -> dict[str, object]:
    """Start a broker, run the snippets one after the other, return the figures."""
    directory = Path(tempfile.mkdtemp(prefix="kb-"))
    fields = {"code": options.code, **({"silent": True} if options.silent else {})}
    latencies: list[float] = []
    try:
        async with (
            broker(directory, warm=1) as ours,
            ours.attach("hotpath", MSGPACK if options.codec == "msgpack" else JSON) as session,
        ):
            for _ in range(options.warmup):
                await session.ask("execute", **fields)
            await ours.warm()  # the refill is over
            kernel = (await ours.session("hotpath"))["pid"]
            pids = {"broker": ours.pid, "kernel": kernel, "client": os.getpid()}
            gc.collect()
            gc.freeze()
            mood, before, began = Mood.now(), processor_time(pids), perf_counter()
            for _ in range(options.count):
                start = perf_counter()
                events = await session.ask("execute", **fields)
                latencies.append(1000 * (perf_counter() - start))
            wall = perf_counter() - began
            after = processor_time(pids)
            assert events[-1]["status"] == "ok", events[-1]
            await session.ask("close")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    latency = Summary.of(latencies)
    return {
        "executions": latency.n,
        "p50_ms": latency.p50,
        "p95_ms": latency.p95,
        "p99_ms": latency.p99,
        "per_second": options.count / wall,
        # Clock ticks are 10 ms: below some hundred executions this says little.
        "cpu_us": {name: 1e6 * (after[name] - before[name]) / options.count for name in pids},
        "machine": Mood.now().since(mood),
    }


def main() -> int:
    options = arguments()
    figures = asyncio.run(run(options))
    if options.json_only:
        print(json.dumps(figures))
        return 0
    print(
        "{executions} executions: p50 {p50_ms:.2f} ms, p95 {p95_ms:.2f} ms, p99 {p99_ms:.2f} ms, "
        "{per_second:.0f} per second".format(**figures)
    )
    spent = figures["cpu_us"]
    assert isinstance(spent, dict)
    print("CPU per execution:", ", ".join(f"{name} {us:.0f} µs" for name, us in spent.items()))
    print("machine:", figures["machine"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
