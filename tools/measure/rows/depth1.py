"""One connection that asks for one block at a time: what a request costs when nothing can be coalesced."""

from rivals import byte_size
from measure.figures import at_most, cell, middle, pick, ratio, subjects
from measure.seeders import Content, started

TITLE = "One request at a time"
# Who paces itself takes most of a minute to begin with.
SHARE = 2
RIVALS = ("libtorrent", "transmission", "aria2", "rtorrent", "rqbit", "qbittorrent")
ABOUT = """
One connection with one request in flight: between two blocks the seeder sleeps. CPU is the seeder's for each request, most of
it the kernel's: the segment, the wake-up of the peer, the wake-up by its next request. `floor-ring` is a bare ring loop, one
multishot receive and one SENDMSG for each block; `floor-writev` the same with epoll, recv and writev. A seeder that paces
itself, or leaves the end of a block to Nagle's algorithm and the peer's delayed acknowledgement (44 ms), serves so little
that there is next to nothing to count.
"""
RING, FLOORS = "floor-ring", ("floor-ring", "floor-writev")
BAR = 1.2
BLOCKS_PER_GIB = (1 << 30) // 16384


def add_arguments(parser):
    parser.add_argument("--depth1-size", type=byte_size, default=512 << 20, help="of the content [default: 512MiB]")
    parser.add_argument("--depth1-subjects", help="which, of seedring, " + ", ".join(FLOORS + RIVALS) + " [default: all]")


def measure(bench):
    content = Content(bench, bench.work, bench.size(bench.options.depth1_size, 4 << 20))
    running = started(bench, content, FLOORS, bench.options.depth1_subjects)
    for repetition in range(bench.repetitions):
        for seeder in running:
            run = seeder.measure(1, 1)
            if run is None:
                continue
            if "cpu_seconds_per_gib" in run:
                run["cpu_us_per_request"] = run["cpu_seconds_per_gib"] / BLOCKS_PER_GIB * 1e6
            bench.say(f"{seeder.name}: {run.get('cpu_us_per_request', 0):.1f} µs a request, {run['p50_ms']:.3f} ms")
            yield {"repetition": repetition, **run}


def tables(runs):
    columns = [("cpu_us_per_request", 1), ("p50_ms", 3), ("p99_ms", 3), ("gib_per_second", 3)]
    rows = [[name, *(cell(runs, key, digits, subject=name) for key, digits in columns), len(pick(runs, "p50_ms", subject=name))]
            for name in subjects(runs)]
    return [("One connection, one request in flight:",
             ["seeder", "CPU µs a request", "p50 ms", "p99 ms", "GiB/s", "runs"], rows)]


def verdicts(runs):
    cost = {name: middle(runs, "cpu_us_per_request", subject=name) for name in subjects(runs)}
    found = [at_most("CPU per request, against the bare ring loop", ratio(cost.get("seedring"), cost.get(RING)), BAR)]
    rivals = {name: cost[name] for name in cost if name in RIVALS and cost[name] is not None}
    if rivals and cost.get("seedring") is not None:
        least = min(rivals, key=rivals.get)
        against = cost["seedring"] / rivals[least]
        found.append((f"the same, against the cheapest rival ({least})", against, "< 1", against < 1))
    return found
