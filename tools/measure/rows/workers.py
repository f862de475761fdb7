"""Two workers against one: what sharing the work between cores costs, for one hot torrent and for many."""

import json, subprocess, time

from rivals import byte_size, cpu_seconds
from measure.figures import at_most, cell, middle, pick, ratio, subjects
from measure.seeders import HOST

TITLE = "Two workers against one"
ABOUT = """
48 connections with 40 requests in flight each, all on one torrent, or spread over sixteen. Where there are only two cores,
load and two workers have to share them, which by itself changes what a GiB costs: a wake-up of somebody on the same core is cheaper than one of
another core, and caches are shared. So one worker is measured twice, with the load on the other core and with the load on both
cores as it is beside two workers; the second is what two workers are judged by. CPU is the seeder's alone.
"""
ONE_APART, ONE_SHARED = "1 worker, load on the other core", "1 worker, load on both cores"
TWO_SHARED = "2 workers, load on both cores"
HOT, SPREAD = "one torrent", "16 torrents"
TORRENTS, CONNECTIONS, DEPTH = 16, 48, 40
BAR = 1.1


def add_arguments(parser):
    parser.add_argument("--workers-size", type=byte_size, default=64 << 20,
                        help="of each of the 16 contents [default: 64MiB]")


class Seeding:
    """A seeder of all torrents."""

    def __init__(self, bench, name, torrents, data, workers, cores):
        state = bench.work / f"state-{workers}-{cores}"
        self.log = bench.work / f"{state.name}.log"
        command = [bench.seedring, "seed", *torrents, "--data", data, "--bind", HOST, "--port", "0", "--tracker-port", "0",
                   "--workers", workers, "--json", "--upload-slots", 2 * CONNECTIONS, "--state-dir", state]
        self.name, self.process = name, bench.start(command, self.log, cores)

    def address(self):
        """Where it listens, once it has checked its content."""
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                event = json.loads(line) if line.startswith("{") else {}
                if event.get("event") == "started":
                    return event["peer_addresses"][0]
            time.sleep(0.05)
        raise RuntimeError(f"does not serve: {self.log.read_text()[-500:]}")


def measure(bench):
    count, size = bench.size(TORRENTS, 2), bench.size(bench.options.workers_size, 1 << 20)
    data = bench.work / "data"
    contents = [bench.content(data / f"content-{number}.bin", size) for number in range(count)]
    torrents = [bench.torrent(content, bench.work / f"{content.stem}.torrent") for content in contents]
    seeder_core, load_core = bench.cores
    both = [seeder_core, load_core]
    one = Seeding(bench, ONE_APART, torrents, data, 1, seeder_core)
    addresses = {1: one.address()}
    kinds = [(ONE_APART, 1, one, [load_core]), (ONE_SHARED, 1, one, both)]
    if seeder_core != load_core:
        two = Seeding(bench, TWO_SHARED, torrents, data, 2, f"{seeder_core},{load_core}")
        addresses[2] = two.address()
        kinds.append((TWO_SHARED, 2, two, both))
    # Nearly all of the cost is the kernel's and moves by a tenth from run to run, as much as the bar allows.
    for repetition in range(bench.size(2 * bench.repetitions, bench.repetitions)):
        for spread_over, asked in ((HOT, torrents[:1]), (SPREAD, torrents)):
            for subject, workers, seeding, cores in kinds:
                run = load(bench, seeding, addresses[workers], asked, cores)
                bench.say(f"{subject}, {spread_over}: {run.get('cpu_seconds_per_gib', 0):.3f} CPU-s/GiB")
                yield {"subject": subject, "repetition": repetition, "content": spread_over, **run}


def load(bench, seeding, address, torrents, cores):
    """Several loads at once: one process for each torrent, and one for each core where there are fewer torrents."""
    jobs = [(torrents[number % len(torrents)], cores[number % len(cores)])
            for number in range(max(len(torrents), len(cores)))]
    connections = max(1, bench.size(CONNECTIONS, 4) // len(jobs))
    before = cpu_seconds(seeding.process.pid)
    running = []
    for number, (torrent, core) in enumerate(jobs):
        command = [bench.seedring, "bench", address, torrent, "--connections", connections, "--depth", DEPTH,
                   "--duration", f"{round(bench.seconds * 1000)}ms", "--pin", core, "--json",
                   # Peer ids come from it, and a seeder keeps one connection of each.
                   "--seed", number + 1]
        running.append(subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True))
    reports = [json.loads(process.communicate(timeout=bench.seconds * 4 + 60)[0]) for process in running]
    cpu = cpu_seconds(seeding.process.pid) - before
    gib = sum(report["bytes"] for report in reports) / 2**30
    return {
        **({"cpu_seconds_per_gib": cpu / gib} if cpu > 0.02 else {}),
        "gib_per_second": sum(report["bytes_per_second"] for report in reports) / 2**30,
        "p99_ms": max(report["latency"]["p99_us"] for report in reports) / 1000,
        "load_cpu_seconds_per_gib": sum(report["own_cpu_seconds"] for report in reports) / gib,
    }


def tables(runs):
    columns = [("cpu_seconds_per_gib", 3), ("gib_per_second", 2), ("p99_ms", 1), ("load_cpu_seconds_per_gib", 3)]
    return [(f"{CONNECTIONS} connections on {content}:",
             ["seeder", "CPU-s per GiB", "GiB/s", "p99 ms", "load's CPU-s per GiB", "runs"],
             [[name, *(cell(runs, key, digits, subject=name, content=content) for key, digits in columns),
               len(pick(runs, "p99_ms", subject=name, content=content))] for name in subjects(runs)])
            for content in dict.fromkeys(run["content"] for run in runs)]


def verdicts(runs):
    def against(content):
        cost = lambda name: middle(runs, "cpu_seconds_per_gib", subject=name, content=content)
        return at_most(f"CPU per GiB of two workers, against one beside the same load, {content}",
                       ratio(cost(TWO_SHARED), cost(ONE_SHARED)), BAR)
    return [against(content) for content in dict.fromkeys(run["content"] for run in runs)]
