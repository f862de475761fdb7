"""Checking content that lies in the page cache, beside a bare loop of pread and SHA-1."""

import resource, statistics, subprocess, time

from rivals import byte_size, spread

TITLE = "Check"
ABOUT = """
`seedring check` of a file in the page cache, on one core and on two, with all that a command does; the floors read
pieces and hash them, one (`1-lane`) or four at a time on one core, and do nothing else. CPU is user and system time of
the whole process.
"""
FLOOR, FOUR_LANES, ONE_CORE, TWO_CORES = "floor, 1 lane", "floor, 4 lanes", "seedring, 1 core", "seedring, 2 cores"
# What a check may cost against the bare loop, and what a second core must bring.
BAR, STRETCH, LINEAR = 1.05, 0.65, 1.9


def add_arguments(parser):
    parser.add_argument("--check-size", type=byte_size, default=4 << 30, help="of the checked file [default: 4GiB]")


def measure(bench):
    size = bench.size(bench.options.check_size, 4 << 20)
    content = bench.content(bench.work / "content.bin", size)
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
            gib = size / 2**30
            bench.say(f"{subject}: {cpu / gib:.3f} CPU-s/GiB, {seconds:.2f} s")
            yield {"subject": subject, "repetition": repetition, "cpu_seconds_per_gib": cpu / gib,
                   "gib_per_second": gib / seconds}


def cost(command):
    """CPU seconds and seconds of a command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, seconds


def of(runs, subject, key):
    return [run[key] for run in runs if run["subject"] == subject]


def tables(runs):
    subjects = dict.fromkeys(run["subject"] for run in runs)
    rows = [[name, spread(of(runs, name, "cpu_seconds_per_gib"), 3), spread(of(runs, name, "gib_per_second"), 2),
             len(of(runs, name, "gib_per_second"))] for name in subjects]
    return [("Content in the page cache.", ["check", "CPU-seconds per GiB", "GiB/s", "runs"], rows)]


def verdicts(runs):
    middle = lambda subject, key: statistics.median(of(runs, subject, key) or [float("nan")])
    cpu = middle(ONE_CORE, "cpu_seconds_per_gib") / middle(FLOOR, "cpu_seconds_per_gib")
    linear = middle(TWO_CORES, "gib_per_second") / middle(ONE_CORE, "gib_per_second")
    return [
        ("CPU per GiB against the bare loop with one lane, one core", cpu, f"≤ {BAR}", judged(cpu, cpu <= BAR)),
        ("the same, stretch", cpu, f"≤ {STRETCH}", judged(cpu, cpu <= STRETCH)),
        ("throughput of two cores against one", linear, f"≥ {LINEAR}", judged(linear, linear >= LINEAR)),
    ]


def judged(figure, holds):
    """Nothing is judged without figures."""
    return None if figure != figure else holds
