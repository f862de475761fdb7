"""Seeding content that lies in the page cache, to 1, 10, 50 and 200 connections, beside all rivals and bare loops."""

import subprocess

from rivals import byte_size
from measure import plots as drawn
from measure.figures import at_most, cell, middle, pick, ratio, subjects
from measure.seeders import FLOORS, Content, started

TITLE = "Seeding"
SHARE = 4
RIVALS = ("libtorrent", "transmission", "aria2", "rtorrent", "rqbit", "nginx")
ABOUT = """
Random data in the page cache, pieces of 256 KiB; every connection keeps 40 requests of 16 KiB in flight. CPU is the
seeder's user and system time, on one core with all its threads, for each GiB of payload; on loopback the cost of receiving
falls on the sender, too. The load's own CPU stands beside it: where it is less than the seeder's, the seeder is what limits the
run. The floors are bare loops that send the same bytes, `floor-writev` in batches of 256 KiB from a mapping,
`floor-sendfile` block by block; `floor-stream` streams the file with sendfile, 256 KiB a call, to one reader that throws it
away, without framing or requests. nginx serves the same file over HTTP with sendfile, in ranges of 256 KiB, as many bytes in
flight. Served: connections that got at least one block; a seeder that serves fewer has less to do. Rivals run with their own
defaults, without limits on peers and slots, discovery off (tools/measure/seeders.py). Transmission paces itself.
"""
# CPU per GiB against: the floor with batches of equal size, at one connection and above; sendfile; and rivals.
WRITEV_ONE, WRITEV, SENDFILE = 1.3, 1.15, 1.75
STREAM = "floor-stream"
RIVAL_BARS = (("libtorrent", 0.25), ("rqbit", 0.25), ("rtorrent", 0.5))


def add_arguments(parser):
    parser.add_argument("--seeding-size", type=byte_size, default=2 << 30, help="of the content [default: 2GiB]")
    parser.add_argument("--seeding-connections", default="1,10,50,200", help="[default: 1,10,50,200]")
    parser.add_argument("--seeding-depth", type=int, default=40, help="requests in flight [default: 40]")
    parser.add_argument("--seeding-subjects", help="which, of seedring, " + ", ".join(FLOORS + RIVALS) + " [default: all]")


def measure(bench):
    content = Content(bench, bench.work, bench.size(bench.options.seeding_size, 4 << 20))
    counts = [1, 10] if bench.smoke else [int(count) for count in bench.options.seeding_connections.split(",")]
    # All are there from the beginning; who is not asked sleeps.
    running = started(bench, content, FLOORS, bench.options.seeding_subjects)
    for repetition in range(bench.repetitions):
        if bench.floors and (not bench.options.seeding_subjects or STREAM in bench.options.seeding_subjects.split(",")):
            cost = stream(bench, content.file)
            bench.say(f"{STREAM}: {cost:.3f} CPU-s/GiB")
            yield {"repetition": repetition, "subject": STREAM, "connections": 1, "cpu_seconds_per_gib": cost}
        for count in counts:
            for seeder in running:
                run = seeder.measure(count, bench.options.seeding_depth)
                if run is not None:
                    bench.say(f"{seeder.name} at {count}: {run.get('cpu_seconds_per_gib', 0):.3f} CPU-s/GiB, "
                              f"{run['gib_per_second']:.2f} GiB/s")
                    yield {"repetition": repetition, **run}


def stream(bench, content):
    """CPU seconds for each GiB of a bare stream; the floor prints one line that ends with them."""
    seeder, load = bench.cores
    length = bench.size(4 << 30, 16 << 20)
    command = [bench.floors, "raw", "sendfile", content, "--bytes", length, "--pin", seeder, "--pin-sink", load]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=120)
    return float(done.stdout.split(" per GiB")[0].split()[-1])


def counts_of(runs):
    return sorted(dict.fromkeys(run["connections"] for run in runs))


def tables(runs):
    found = []
    for count in counts_of(runs):
        header = ["seeder", "CPU-s per GiB", "GiB/s", "p50 ms", "p99 ms", "p99.9 ms", "Jain", "served",
                  "anonymous MiB", "load's CPU-s per GiB", "runs"]
        rows = []
        for name in subjects(runs):
            here = {"subject": name, "connections": count}
            columns = [("cpu_seconds_per_gib", 3), ("gib_per_second", 2), ("p50_ms", 2), ("p99_ms", 2), ("p999_ms", 2),
                       ("jain", 3), ("served", 0), ("anonymous_mib", 0), ("load_cpu_seconds_per_gib", 3)]
            cells = [cell(runs, key, digits, **here) for key, digits in columns]
            rows.append([name, *cells, len(pick(runs, "jain", **here))])
        found.append((f"{count} connection{'s' if count > 1 else ''}:", header, rows))
    return found


def summary(runs):
    """For README.md: what a GiB costs, over connections."""
    counts = counts_of(runs)
    rows = [[name, *(cell(runs, "cpu_seconds_per_gib", 3, subject=name, connections=count) for count in counts)]
            for name in subjects(runs)]
    caption = ("CPU seconds of the seeder for each GiB that it serves from the page cache, on loopback, seeder on one core and "
               "load on another, 40 requests of 16 KiB in flight on each connection; medians of alternating runs, least and "
               "most in brackets. The floors are bare loops that send the same "
               "bytes and do nothing else; nginx sends the same file over HTTP:")
    return caption, ["seeder", *(f"{count} connection{'s' if count > 1 else ''}" for count in counts)], rows


def verdicts(runs):
    cost = lambda name, count: middle(runs, "cpu_seconds_per_gib", subject=name, connections=count)

    def against(what, name, counts, bar):
        """The worst of several counts."""
        times = {count: ratio(cost("seedring", count), cost(name, count)) for count in counts}
        times = {count: figure for count, figure in times.items() if figure is not None}
        if not times:
            return what, None, f"≤ {bar:g}", None
        worst = max(times, key=times.get)
        return at_most(f"{what} (most at {worst})" if len(times) > 1 else what, times[worst], bar)

    counts, found = counts_of(runs), []
    several = [count for count in counts if count > 1]
    if 1 in counts:
        found.append(against("CPU per GiB at 1 connection, against the writev floor", "floor-writev", [1], WRITEV_ONE))
    found.append(against("CPU per GiB at more connections, against the writev floor", "floor-writev", several, WRITEV))
    found.append(against("CPU per GiB, against the sendfile floor", "floor-sendfile", counts, SENDFILE))
    streams = {count: ratio(cost("seedring", count), cost(STREAM, 1)) for count in counts}
    streams = {count: figure for count, figure in streams.items() if figure is not None}
    if streams:
        worst = max(streams, key=streams.get)
        found.append(at_most(f"CPU per GiB, against a bare stream of sendfile (most at {worst})", streams[worst], SENDFILE))
    for name, bar in RIVAL_BARS:
        found.append(against(f"CPU per GiB, against {name}", name, counts, bar))
    loads = [ratio(middle(runs, "load_cpu_seconds_per_gib", subject="seedring", connections=count), cost("seedring", count))
             for count in counts]
    loads = [load for load in loads if load is not None]
    if loads:
        found.append(("the load's own CPU per GiB, against the seeder's", max(loads), "< 1", max(loads) < 1))
    return found


def plots(runs):
    def plot(title, label, key, logarithmic):
        series = {name: {count: pick(runs, key, subject=name, connections=count) for count in counts_of(runs)}
                  for name in subjects(runs)}
        return drawn.over_steps(title, "connections", label, counts_of(runs), series, logarithmic)
    return [
        ("cpu", plot("What a GiB costs the seeder", "CPU seconds per GiB, logarithmic", "cpu_seconds_per_gib", True)),
        ("throughput", plot("Throughput of one core", "GiB/s", "gib_per_second", False)),
        ("p99", plot("Latency of a block, 99th percentile", "milliseconds, logarithmic", "p99_ms", True)),
    ]
