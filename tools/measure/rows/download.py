"""Downloading from one libtorrent seed, to memory and to disk, beside all rivals and a bare loop."""

import filecmp, json, os, shutil, subprocess, time

import rivals
from rivals import Libtorrent, Place, Tracker, byte_size, cpu_seconds
from measure import leeching
from measure import plots as drawn
from measure.figures import at_most, cell, middle, pick, ratio, subjects

TITLE = "Download"
SHARE = 5
RIVALS = ("libtorrent", "transmission", "aria2", "rtorrent", "qbittorrent", "rqbit")
ABOUT = """
One libtorrent seed serves random data from memory on the load's core; each client downloads it with all its threads on the
other core. CPU is the client's user and system time from its start until it has everything, hashing and writing included;
seconds likewise by the clock, with whatever a client waits for before it begins. Every file is compared with the original
afterwards. Mapped files count as memory, so anonymous memory stands beside it. The floors receive the same bytes from a
sender of their own, hash one piece at a time or four at once, write, and do nothing else. Each client's settings
stand in tools/rivals.py: its own defaults, discovery off. A client that takes more than 20 seconds is measured once.
"""
FLOORS = {"floor-1-lane": 1, "floor-4-lanes": 4}
# CPU per GiB of the floor that hashes one piece at a time, as everybody else does.
BAR = 1.15
# Seconds of a download after which a client is not asked again.
SLOW = 20
SEED_ADDRESS, LEECH_ADDRESS = rivals.address(1), rivals.address(2)


def add_arguments(parser):
    parser.add_argument("--download-size", type=byte_size, default=2 << 30, help="[default: 2GiB]")
    parser.add_argument("--download-storages", default="memory,disk", help="where to: memory, disk or both")
    parser.add_argument("--download-subjects", help="which, of seedring, " + ", ".join([*FLOORS, *RIVALS]) + " [default: all]")
    parser.add_argument("--download-patience", type=int, default=100, help="seconds after which a run is given up")


def measure(bench):
    # Without a rival that seeds, seedring downloads from seedring: that judges nothing, but runs.
    swarm = Swarm(bench, bench.size(bench.options.download_size, 4 << 20))
    # The tracker and the questions stay off the clients' core.
    os.sched_setaffinity(0, {bench.cores[1]})
    # Who came to nothing, and who waits so long that one run of it has to do.
    done_with, storages = set(), bench.options.download_storages.split(",")
    try:
        swarm.prepare()
        names = ["seedring", *(FLOORS if bench.floors else ()), *bench.rivals]
        if bench.options.download_subjects:
            names = [name for name in names if name in bench.options.download_subjects.split(",")]
        for repetition in range(bench.repetitions):
            for storage in storages:
                for name in names:
                    if (name, storage) in done_with or not bench.time_is_left():
                        continue
                    try:
                        run = swarm.run(name, storage)
                    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                        bench.leave_out(f"{name}, download to {storage}", str(error))
                        done_with.add((name, storage))
                        continue
                    bench.say(f"{name} to {storage}: {run['cpu_seconds_per_gib']:.3f} CPU-s/GiB, {run['seconds']:.2f} s")
                    if run["seconds"] > SLOW:
                        done_with.update((name, other) for other in storages)
                    yield {"subject": name, "repetition": repetition, "storage": storage, **run}
    finally:
        swarm.close()


class Swarm:
    """The seed, the tracker that names it, and the folders."""

    def __init__(self, bench, size):
        self.bench, self.size, self.number = bench, size, 0
        self.tracker = self.seed = None

    def prepare(self):
        bench, data = self.bench, self.bench.memory / "data"
        self.content = bench.content(data / "content.bin", self.size)
        port = rivals.free_port(SEED_ADDRESS)
        self.peer = f"{SEED_ADDRESS}:{port}"
        self.tracker = Tracker(always=[(SEED_ADDRESS, port)])
        # Rivals learn of the seed from a tracker; seedring is told.
        self.bare = bench.torrent(self.content, bench.memory / "content.torrent")
        self.announced = bench.torrent(self.content, bench.memory / "announced.torrent", "--tracker", self.tracker.url)
        home = bench.memory / "seed"
        home.mkdir()
        if "libtorrent" in bench.rivals:
            self.seed = Libtorrent(bench.programs, Place(self.bare, home, data, SEED_ADDRESS), role="seed", port=port)
            self.seed.start(["taskset", "-c", str(bench.cores[1])])
            self.seed_process, is_seeding = self.seed.process, self.seed.is_seeding
        else:
            command = [bench.seedring, "seed", self.bare, "--data", data, "--bind", SEED_ADDRESS, "--port", port,
                       "--tracker-port", "0", "--workers", "1", "--no-pin", "--json", "--state-dir", home]
            self.seed_process = bench.start(command, home / "output.log", bench.cores[1])
            is_seeding = lambda: "started" in (home / "output.log").read_text()
        until = time.monotonic() + 30
        while not is_seeding():
            if time.monotonic() > until or self.seed_process.poll() is not None:
                raise RuntimeError("the seed does not start")
            time.sleep(0.05)

    def run(self, name, storage):
        """One download; OSError, RuntimeError or SubprocessError when it came to nothing."""
        self.number += 1
        # What was written before must not be written back now.
        os.sync()
        folder = (self.bench.memory if storage == "memory" else self.bench.work) / f"{self.number}-{storage}"
        folder.mkdir()
        try:
            figures = self.floor(name, folder) if name in FLOORS else self.download(name, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        gib = self.size / 2**30
        return {**figures, "cpu_seconds_per_gib": figures["cpu_seconds"] / gib, "gib_per_second": gib / figures["seconds"]}

    def floor(self, name, folder):
        command = [self.bench.floors, "receive", "readv", folder / "content.bin", "--bytes", self.size,
                   "--piece-length", "256KiB", "--lanes", FLOORS[name],
                   "--pin", self.bench.cores[0], "--pin-sender", self.bench.cores[1]]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                              timeout=self.bench.options.download_patience)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        report = json.loads(done.stdout)
        return {"cpu_seconds": report["cpu_s_per_gib"] * report["gib"], "seconds": report["seconds"]}

    def download(self, name, folder):
        # Settings and logs lie in memory, whatever the content is written to.
        home, saved = self.bench.memory / f"home-{self.number}", folder / "saved"
        home.mkdir()
        saved.mkdir()
        if name == "seedring":
            client = leeching.Seedring(self.bench.seedring, Place(self.bare, home, saved, LEECH_ADDRESS), self.peer)
        else:
            client = rivals.RIVALS[name](self.bench.programs, Place(self.announced, home, saved, LEECH_ADDRESS))
        self.tracker.forget()
        before = cpu_seconds(self.seed_process.pid)
        figures = leeching.cost(client, self.bench.cores[0], self.bench.options.download_patience)
        seed_cpu = cpu_seconds(self.seed_process.pid) - before
        if not filecmp.cmp(self.content, saved / "content.bin", shallow=False):
            raise RuntimeError("the file differs from the original")
        return {**figures, "load_cpu_seconds_per_gib": seed_cpu / (self.size / 2**30)}

    def close(self):
        if self.seed and self.seed.process:
            rivals.stop(self.seed.process)
        if self.tracker:
            self.tracker.close()


def storages_of(runs):
    return list(dict.fromkeys(run["storage"] for run in runs))


def tables(runs):
    header = ["client", "CPU-s per GiB", "of the floor", "seconds", "GiB/s", "peak memory MiB", "of it anonymous MiB",
              "seed's CPU-s per GiB", "runs"]
    found = []
    for storage in storages_of(runs):
        floor, rows = middle(runs, "cpu_seconds_per_gib", subject="floor-1-lane", storage=storage), []
        for name in subjects(runs):
            here = {"subject": name, "storage": storage}
            times = ratio(middle(runs, "cpu_seconds_per_gib", **here), floor)
            columns = [("seconds", 2), ("gib_per_second", 2), ("peak_mib", 0), ("anonymous_mib", 0),
                       ("load_cpu_seconds_per_gib", 3)]
            rows.append([name, cell(runs, "cpu_seconds_per_gib", 3, **here), f"{times:.2f}" if times else "-",
                         *(cell(runs, key, digits, **here) for key, digits in columns), len(pick(runs, "seconds", **here))])
        found.append((f"To {storage}:", header, rows))
    return found


def verdicts(runs):
    found = []
    for storage in storages_of(runs):
        costs = {name: middle(runs, "cpu_seconds_per_gib", subject=name, storage=storage) for name in subjects(runs)}
        ours = costs.get("seedring")
        found.append(at_most(f"CPU per GiB to {storage}, against the bare loop with one lane",
                             ratio(ours, costs.get("floor-1-lane")), BAR))
        theirs = {name: cost for name, cost in costs.items() if name in RIVALS and cost is not None}
        if theirs:
            best = min(theirs, key=theirs.get)
            times = ratio(ours, theirs[best])
            found.append((f"the same, against the best rival ({best})", times, "< 1", None if times is None else times < 1))
    return found


def plots(runs):
    return [(f"to-{storage}", drawn.bars(
        f"What a GiB costs the downloader, to {storage}", "CPU seconds per GiB",
        {name: pick(runs, "cpu_seconds_per_gib", subject=name, storage=storage) for name in subjects(runs)}))
        for storage in storages_of(runs)]
