"""How evenly requests are answered under full load: 50 connections that keep four requests each in flight."""

from rivals import byte_size
from measure.figures import at_most, cell, middle, pick, ratio, subjects
from measure.seeders import Content, started

TITLE = "Latency under full load"
RIVALS = ("libtorrent", "rtorrent", "rqbit")
ABOUT = """
50 connections with 4 requests of 16 KiB in flight on each, as fast as it goes: the seeder's core is busy all the time, so
that a request waits for those of all others. From sending a request to the last byte of its block.
"""
CONNECTIONS, DEPTH = 50, 4
BAR = 10


def add_arguments(parser):
    parser.add_argument("--latency-size", type=byte_size, default=1 << 30, help="of the content [default: 1GiB]")


def measure(bench):
    content = Content(bench, bench.work, bench.size(bench.options.latency_size, 4 << 20))
    running = started(bench, content, ("floor-ring", "floor-writev"))
    for repetition in range(bench.repetitions):
        for seeder in running:
            run = seeder.measure(bench.size(CONNECTIONS, 5), DEPTH)
            if run is not None:
                bench.say(f"{seeder.name}: p50 {run['p50_ms']:.2f} ms, p99 {run['p99_ms']:.2f} ms")
                yield {"repetition": repetition, **run, "p99_to_p50": run["p99_ms"] / max(run["p50_ms"], 1e-6)}


def tables(runs):
    columns = [("p50_ms", 2), ("p99_ms", 2), ("p999_ms", 2), ("p99_to_p50", 1), ("jain", 3), ("cpu_seconds_per_gib", 3),
               ("gib_per_second", 2)]
    rows = [[name, *(cell(runs, key, digits, subject=name) for key, digits in columns), len(pick(runs, "p50_ms", subject=name))]
            for name in subjects(runs)]
    return [(f"{CONNECTIONS} connections, {DEPTH} requests in flight on each:",
             ["seeder", "p50 ms", "p99 ms", "p99.9 ms", "p99 / p50", "Jain", "CPU-s per GiB", "GiB/s", "runs"], rows)]


def verdicts(runs):
    ours = {key: middle(runs, key, subject="seedring") for key in ("p50_ms", "p99_ms")}
    return [at_most("p99 of request to block, against p50", ratio(ours["p99_ms"], ours["p50_ms"]), BAR)]
