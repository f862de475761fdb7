"""A warm torrent while others wait for a disk that takes half a second for each read: it must not notice."""

import ctypes, json, os, pathlib, signal, subprocess, sys, time

import rivals
from rivals import byte_size
from measure.bench import evict
from measure.figures import at_most, cell, middle, pick, ratio, subjects
from measure.seeders import HOST, Content, Seeder

TITLE = "A warm torrent beside a slow disk"
ABOUT = """
One seeder with one worker has two torrents, one in the page cache and one on a device of our own making (tools/measure/slow_device.py,
a FUSE file system) that answers each read half a second after it was asked. 10 connections download the warm one with 4
requests in flight each, alone and while 4 connections with 64 requests each wait for the slow one. Major faults: times that a
worker itself waited for a disk.
"""
ALONE, BESIDE = "alone", "beside the slow disk"
DELAY_MS = 500
BAR = 1.3
NEW_MOUNTS, PRIVATE, RECURSIVE, BIND = 0x20000, 1 << 18, 16384, 4096


def add_arguments(parser):
    parser.add_argument("--slow-disk-size", type=byte_size, default=512 << 20, help="of each content [default: 512MiB]")


def mount(source, target, flags):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(source), os.fsencode(target), None, flags, None) != 0:
        raise RuntimeError(f"cannot mount on {target}: {os.strerror(ctypes.get_errno())}")


class SlowDisk:
    """The device, mounted in mounts of our own, with its one file bound to where the seeder looks for it."""

    def __init__(self, bench, content, place):
        self.bench, self.folder = bench, bench.memory / "mounted"
        self.folder.mkdir()
        if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS) != 0:
            raise RuntimeError(f"no mounts of our own: {os.strerror(ctypes.get_errno())}")
        mount("none", "/", PRIVATE | RECURSIVE)
        log = bench.memory / "device.log"
        program = pathlib.Path(__file__).resolve().parent.parent / "slow_device.py"
        self.process = bench.start([sys.executable, program, content, self.folder, DELAY_MS], log, bench.cores[1])
        self.file = self.folder / "slow.bin"
        until = time.monotonic() + 20
        while not self.file.exists():
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"the slow device does not start: {log.read_text().strip()}")
            time.sleep(0.05)
        # A window at a time, as disks are read here.
        number = os.stat(self.file).st_dev
        ahead = pathlib.Path(f"/sys/class/bdi/{os.major(number)}:{os.minor(number)}/read_ahead_kb")
        if ahead.exists() and os.access(ahead, os.W_OK):
            ahead.write_text("256")
        place.touch()
        mount(self.file, place, BIND)

    def slow_down(self):
        """Nothing of it is in memory, and from now on it takes its time."""
        evict(self.file)
        self.process.send_signal(signal.SIGUSR1)


class Both(Seeder):
    """Seeds the warm and the slow torrent."""

    def __init__(self, bench, content, slow):
        super().__init__(bench, "seedring", content)
        self.slow = slow

    def command(self, state):
        self.log = state / "output.log"
        return [*super().command(state), self.slow]

    def ask_for_slow(self, seconds):
        command = [self.bench.seedring, "bench", f"{HOST}:{self.port}", self.slow, "--connections", 4, "--depth", 64, "--json",
                   "--pin", self.bench.cores[1], "--duration", f"{round(seconds * 1000)}ms"]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def major_faults(self):
        faults = 0
        for line in self.log.read_text(errors="replace").splitlines():
            if '"status"' in line:
                faults = json.loads(line)["engine"]["major_faults"]
        return faults


def measure(bench):
    length = bench.size(bench.options.slow_disk_size, 4 << 20)
    content = Content(bench, bench.work, length)
    behind = bench.content(bench.memory / "behind" / "slow.bin", length)
    torrent = bench.torrent(behind, bench.memory / "slow.torrent")
    try:
        disk = SlowDisk(bench, behind, content.data / "slow.bin")
    except (RuntimeError, OSError) as error:
        bench.leave_out("the slow device", str(error))
        return
    seeder = Both(bench, content, torrent)
    if not seeder.start():
        return
    # Both are ready when the slow one gives a block, too.
    while seeder.process.poll() is None and '"ready"' not in seeder.log.read_text(errors="replace"):
        time.sleep(0.1)
    disk.slow_down()
    seconds = max(bench.seconds, 0.5)
    for repetition in range(bench.repetitions):
        for subject in (ALONE, BESIDE):
            faults = seeder.major_faults()
            others = seeder.ask_for_slow(seconds + 1.5) if subject == BESIDE else None
            if others:
                time.sleep(1)
            run = seeder.measure(bench.size(10, 2), 4)
            slow = 0
            if others:
                told = others.communicate(timeout=60)[0]
                slow = json.loads(told)["bytes"] if told.strip().startswith("{") else 0
            # A status line comes each second.
            time.sleep(1.1)
            if run is not None:
                run |= {"subject": subject, "major_faults": seeder.major_faults() - faults, "slow_mib": slow / 2**20}
                bench.say(f"{subject}: p50 {run['p50_ms']:.2f} ms, p99 {run['p99_ms']:.2f} ms, slow {run['slow_mib']:.1f} MiB")
                yield {"repetition": repetition, **run}


def tables(runs):
    columns = [("p50_ms", 2), ("p99_ms", 2), ("p999_ms", 2), ("gib_per_second", 2), ("cpu_seconds_per_gib", 3),
               ("slow_mib", 1), ("major_faults", 0)]
    rows = [[name, *(cell(runs, key, digits, subject=name) for key, digits in columns), len(pick(runs, "p50_ms", subject=name))]
            for name in subjects(runs)]
    return [("The warm torrent:", ["", "p50 ms", "p99 ms", "p99.9 ms", "GiB/s", "CPU-s per GiB", "MiB of the slow one",
                                   "major faults", "runs"], rows)]


def verdicts(runs):
    faults = sum(pick(runs, "major_faults"))
    return [at_most("p99 of the warm torrent beside a slow disk, against alone",
                    ratio(middle(runs, "p99_ms", subject=BESIDE), middle(runs, "p99_ms", subject=ALONE)), BAR),
            ("major faults of the worker", faults, "0", faults == 0)]
