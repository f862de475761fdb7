"""Checking content that lies in the page cache, beside a bare loop of pread and SHA-1."""

import resource, subprocess, time

import rivals
from rivals import Libtorrent, Place, byte_size
from measure import leeching
from measure import plots as drawn
from measure.figures import at_least, at_most, cell, middle, pick, ratio, subjects

TITLE = "Check"
RIVALS = ("libtorrent",)
ABOUT = """
`seedring check` of a file in the page cache, on one core and on two, with all that a command does; the floors read
pieces and hash them, one or four at a time (lanes) on one core, and do nothing else. libtorrent finds the file there and
checks it. CPU is user and system time of the whole process.
"""
FLOOR, FOUR_LANES, ONE_CORE, TWO_CORES = "floor-1-lane", "floor-4-lanes", "seedring, 1 core", "seedring, 2 cores"
# What a check may cost against the bare loop, and what a second core must bring.
BAR, STRETCH, LINEAR = 1.05, 0.65, 1.9


def add_arguments(parser):
    parser.add_argument("--check-size", type=byte_size, default=4 << 30, help="of the checked file [default: 4GiB]")


def measure(bench):
    size = bench.size(bench.options.check_size, 4 << 20)
    gib, data = size / 2**30, bench.work / "data"
    content = bench.content(data / "content.bin", size)
    torrent = bench.torrent(content, bench.work / "content.torrent")
    first, second = bench.cores
    check = [bench.seedring, "check", torrent, content, "--json"]
    commands = {ONE_CORE: (f"{first}", check)}
    if bench.floors:
        hashing = [bench.floors, "hash", content, "--piece-length", "256KiB", "--lanes"]
        commands = {FLOOR: (f"{first}", [*hashing, "1"]), FOUR_LANES: (f"{first}", [*hashing, "4"]), **commands}
    if first != second:
        commands[TWO_CORES] = (f"{first},{second}", check)
    for repetition in range(bench.repetitions):
        for subject, (cores, command) in commands.items():
            cpu, seconds = cost(["taskset", "-c", cores, *map(str, command)])
            yield told(bench, subject, repetition, cpu / gib, gib / seconds)
        if "libtorrent" in bench.rivals:
            home = bench.memory / f"home-{repetition}"
            home.mkdir()
            client = Libtorrent(bench.programs, Place(torrent, home, data, rivals.address(2)))
            figures = leeching.cost(client, first, 100)
            yield told(bench, "libtorrent, 1 core", repetition, figures["cpu_seconds"] / gib, gib / figures["seconds"])


def told(bench, subject, repetition, cpu, rate):
    bench.say(f"{subject}: {cpu:.3f} CPU-s/GiB, {rate:.2f} GiB/s")
    return {"subject": subject, "repetition": repetition, "cpu_seconds_per_gib": cpu, "gib_per_second": rate}


def cost(command):
    """CPU seconds and seconds of a command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, seconds


def tables(runs):
    rows = [[name, cell(runs, "cpu_seconds_per_gib", 3, subject=name), cell(runs, "gib_per_second", 2, subject=name),
             len(pick(runs, "gib_per_second", subject=name))] for name in subjects(runs)]
    return [("Content in the page cache:", ["check", "CPU-s per GiB", "GiB/s", "runs"], rows)]


def verdicts(runs):
    cpu = ratio(middle(runs, "cpu_seconds_per_gib", subject=ONE_CORE), middle(runs, "cpu_seconds_per_gib", subject=FLOOR))
    linear = ratio(middle(runs, "gib_per_second", subject=TWO_CORES), middle(runs, "gib_per_second", subject=ONE_CORE))
    return [
        at_most("CPU per GiB on one core, against the bare loop with one lane", cpu, BAR),
        at_most("the same, stretch", cpu, STRETCH),
        at_least("throughput of two cores against one", linear, LINEAR),
    ]


def plots(runs):
    return [("cpu", drawn.bars("What checking a GiB costs", "CPU seconds per GiB", {
        name: pick(runs, "cpu_seconds_per_gib", subject=name) for name in subjects(runs)}))]
