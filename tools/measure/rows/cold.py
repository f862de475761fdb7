"""Content that is not in the page cache: how much of what the disk can do reaches the peers."""

import json, subprocess, time

import rivals
from rivals import byte_size, cpu_seconds
from measure.bench import evict
from measure.figures import at_least, cell, middle, pick, ratio, subjects
from measure.seeders import Content, Seeder

TITLE = "Cold data"
ABOUT = """
Random data on the disk below the work folder, evicted before each run (sync, then posix_fadvise). The seeder is started
anew for each run, since what a process has mapped cannot be evicted. Peers ask for an eighth of the content in random
order, with 512 requests in flight on one connection and 64 on more, so that few ask for what others have had read.
The floor reads as much in windows of 256 KiB in random order with O_DIRECT, 32 at once, and sends nothing.
"""
DEPTHS = {1: 512, 10: 64, 50: 64}
BAR = 0.9


def add_arguments(parser):
    parser.add_argument("--cold-size", type=byte_size, default=4 << 30, help="of the content [default: 4GiB]")


def floor(bench, content, method, length, seed):
    command = [bench.floors, "cold", method, content.file, "--bytes", f"{length}B", "--seed", seed]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        bench.leave_out(f"floor-{method}", done.stderr.strip())
        return None
    told = json.loads(done.stdout)
    return {"subject": f"floor-{method}", "connections": 0, "gib_per_second": told["gib_per_s"],
            "cpu_seconds_per_gib": told["cpu_s_per_gib"]}


def served(bench, content, connections, length, seed):
    folder = bench.work / f"run-{connections}-{seed}"
    folder.mkdir()
    seeder = ColdSeeder(bench, "seedring", content, folder)
    try:
        if not seeder.start():
            return None
        evict(content.file)
        before = cpu_seconds(seeder.process.pid)
        report = seeder.load(connections, DEPTHS[connections], ["--bytes", f"{length}B"], 120, "--seed", str(seed))
        after = cpu_seconds(seeder.process.pid)
    finally:
        seeder.stop()
    if report is None or not report["bytes"]:
        return None
    return {"subject": "seedring", "connections": connections,
            "gib_per_second": report["bytes_per_second"] / 2**30,
            "cpu_seconds_per_gib": (after - before) / (report["bytes"] / 2**30),
            "p50_ms": report["latency"]["p50_us"] / 1e3, "p99_ms": report["latency"]["p99_us"] / 1e3}


class ColdSeeder(Seeder):
    """Serves from a folder of its own, and is not warmed."""

    def __init__(self, bench, name, content, folder):
        super().__init__(bench, name, content)
        self.folder = folder

    def start(self, patience=120):
        self.port = rivals.free_port()
        self.process = self.bench.start(self.command(self.folder), self.folder / "output.log", self.bench.cores[0])
        until = time.monotonic() + patience
        while time.monotonic() < until and self.process.poll() is None:
            if self.load(1, 1, ["--bytes", "16KiB"], 40) is not None:
                return True
            time.sleep(0.2)
        self.bench.leave_out(self.name, "does not serve")
        return False


def measure(bench):
    content = Content(bench, bench.work, bench.size(bench.options.cold_size, 8 << 20))
    length = content.length // 8
    for repetition in range(bench.repetitions):
        for connections in bench.size(list(DEPTHS), [1]):
            runs = [served(bench, content, connections, length, repetition + 1)]
            for method in ("direct", "read", "populate") if bench.floors else ():
                evict(content.file)
                runs.append(floor(bench, content, method, length, repetition + 1))
            for run in filter(None, runs):
                bench.say(f"{run['subject']} {run['connections'] or ''}: {run['gib_per_second']:.2f} GiB/s")
                yield {"repetition": repetition, **run}


def tables(runs):
    rows = []
    for name in subjects(runs):
        for connections in dict.fromkeys(pick(runs, "connections", subject=name)):
            where = {"subject": name, "connections": connections}
            rows.append([name, str(connections or "-"), cell(runs, "gib_per_second", 2, **where),
                         cell(runs, "cpu_seconds_per_gib", 3, **where), cell(runs, "p50_ms", 1, **where),
                         cell(runs, "p99_ms", 1, **where), str(len(pick(runs, "gib_per_second", **where)))])
    return [("Evicted content:", ["subject", "connections", "GiB/s", "CPU-s per GiB", "p50 ms", "p99 ms", "runs"], rows)]


def verdicts(runs):
    direct = middle(runs, "gib_per_second", subject="floor-direct")
    return [at_least(f"throughput at {connections} connections, against O_DIRECT",
                     ratio(middle(runs, "gib_per_second", subject="seedring", connections=connections), direct), BAR)
            for connections in DEPTHS]
