"""Ten thousand torrents of real small files in one process: start, memory, idle cost, and when trackers hear of them."""

import asyncio, collections, os, statistics, struct, threading, time

from measure import many_torrents
from measure.bench import resident
from rivals import spread

TITLE = "Many torrents"
SHARE = 3
ABOUT = """
`seedring seed --torrents DIR --data DIR` after a restart, so that resume files are there: seconds from the start of the
process to its `ready`, anonymous memory (less that of the same process with one torrent) and CPU time while nobody comes
(with the figures it prints each second). The floor reads the resume files and asks for the state of every file of
content, and nothing else, in one thread of Python. Announces: how many a tracker hears in each of the first seconds, and
how many are under way at once; it answers over HTTP or UDP.
"""
FLOOR = "floor, read and stat"
READY_MAX, MEMORY_MAX, IDLE_MAX = 3.0, 8 * 1024, 0.01
# Of the announces of a run the busiest second may have this part, where an even spread has about 50 a second.
BUSIEST_MAX = 120


def add_arguments(parser):
    parser.add_argument("--many-count", type=int, default=10_000, help="torrents [default: 10000]")
    parser.add_argument("--many-idle", type=float, default=30, help="seconds to be idle [default: 30]")


def measure(bench):
    count = bench.size(bench.options.many_count, 20)
    idle = bench.size(bench.options.many_idle, 1)
    bench.say(f"making {count} torrents")
    folder = bench.work / "many"
    many_torrents.make(folder, count)
    counts = sorted({1, max(1, count // 10), count})
    for part in counts:
        some = folder / f"torrents-{part}"
        some.mkdir()
        for number in range(part):
            os.link(folder / "torrents" / f"torrent-{number:05}.torrent", some / f"torrent-{number:05}.torrent")
    # The first start checks everything and writes the resume files.
    first = Seeder(bench, folder, count)
    first.wait_ready(600)
    yield {"subject": f"first start, {count} torrents", "repetition": 0, "ready_seconds": first.ready_seconds}
    first.stop()
    for repetition in range(bench.repetitions):
        seconds = floor(folder)
        bench.say(f"{FLOOR}: {seconds:.2f} s")
        yield {"subject": FLOOR, "repetition": repetition, "ready_seconds": seconds}
        for part in counts:
            seeder = Seeder(bench, folder, part)
            seeder.wait_ready(120)
            time.sleep(2)
            anonymous, before = resident(seeder.process.pid)["RssAnon"], seeder.cpu()
            time.sleep(idle)
            cpu = (seeder.cpu() - before) / idle
            descriptors = len(os.listdir(f"/proc/{seeder.process.pid}/fd"))
            stop_seconds = seeder.stop()
            bench.say(f"{part} torrents: ready in {seeder.ready_seconds:.2f} s, {anonymous / 2**20:.1f} MiB, "
                      f"{cpu:.2%} of a core idle, {descriptors} descriptors, ended in {stop_seconds:.2f} s")
            yield {"subject": f"seedring, {part} torrents", "repetition": repetition, "torrents": part,
                   "ready_seconds": seeder.ready_seconds, "anonymous": anonymous, "idle_cores": cpu,
                   "descriptors": descriptors, "stop_seconds": stop_seconds}
        # After the first repetition, so that a row that is cut short tells it, too.
        if repetition == 0:
            yield from announces(bench, folder, count)


def announces(bench, folder, count):
    """When a tracker hears of the torrents, over either protocol."""
    for scheme in ("http", "udp"):
        with Tracker(scheme) as tracker:
            seeder = Seeder(bench, folder, count, "--tracker", tracker.url)
            seeder.wait_ready(120)
            time.sleep(bench.size(15, 2))
            heard = tracker.per_second()
            seeder.stop()
        bench.say(f"{scheme}: {sum(heard)} announces in {len(heard)} s, {max(heard)} in the busiest, "
                  f"{tracker.at_once_max} at once")
        yield {"subject": f"announces, {scheme}", "repetition": 0, "per_second": heard,
               "at_once_max": tracker.at_once_max}


def floor(folder):
    """Seconds that reading the resume files and looking at every file takes."""
    started = time.monotonic()
    for name in os.listdir(folder / "state"):
        with open(folder / "state" / name, "rb") as file:
            file.read()
    for name in os.listdir(folder / "data"):
        for entry in os.scandir(folder / "data" / name):
            os.stat(entry.path)
    return time.monotonic() - started


class Seeder:
    """A seeder of the first `count` torrents."""

    def __init__(self, bench, folder, count, *options):
        self.bench, self.log = bench, folder / "seeder.log"
        self.started = time.monotonic()
        command = [bench.seedring, "seed", "--torrents", folder / f"torrents-{count}", "--data", folder / "data",
                   "--state-dir", folder / "state", "--json", "--bind", "127.0.0.1", "--port", "0"]
        self.process = bench.start([*command, *(options or ("--tracker-port", "0"))], self.log)

    def wait_ready(self, patience):
        while b'"event":"ready"' not in self.log.read_bytes()[-4096:]:
            if self.process.poll() is not None or time.monotonic() > self.started + patience:
                raise RuntimeError(f"the seeder is not ready: {self.log.read_bytes()[-500:]}")
            time.sleep(0.01)
        self.ready_seconds = time.monotonic() - self.started

    def cpu(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        started = time.monotonic()
        self.bench.stop(self.process)
        return time.monotonic() - started


class Tracker:
    """Takes announces on loopback, says that nobody is there, and notes when they came."""

    def __init__(self, scheme):
        self.scheme, self.times, self.at_once, self.at_once_max = scheme, [], 0, 0
        self.clients = collections.Counter()

    def __enter__(self):
        self.loop, begun = asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self._run, args=(begun,), daemon=True)
        self.thread.start()
        begun.wait()
        self.url = f"{self.scheme}://127.0.0.1:{self.port}/announce"
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def per_second(self):
        """Announces of each second since the first, the last, unfinished one left out."""
        times = list(self.times)
        seconds = collections.Counter(int(at - times[0]) for at in times) if times else {}
        return [seconds[second] for second in range(max(seconds, default=0))] or [0]

    def _run(self, begun):
        asyncio.set_event_loop(self.loop)
        if self.scheme == "http":
            server = self.loop.run_until_complete(asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=1024))
            self.port = server.sockets[0].getsockname()[1]
        else:
            made = self.loop.create_datagram_endpoint(lambda: Datagrams(self), local_addr=("127.0.0.1", 0))
            transport, _ = self.loop.run_until_complete(made)
            self.port = transport.get_extra_info("sockname")[1]
        begun.set()
        self.loop.run_forever()

    async def _answer(self, reader, writer):
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.times.append(time.monotonic())
            body = b"d8:intervali1800e5:peers0:e"
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass
        self.at_once -= 1


class Datagrams(asyncio.DatagramProtocol):
    """A UDP tracker (BEP 15)."""

    def __init__(self, tracker):
        self.tracker = tracker

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        tracker = self.tracker
        action, transaction = struct.unpack_from(">II", data, 8)
        if action == 0:
            self.transport.sendto(struct.pack(">IIQ", 0, transaction, 1), address)
        elif action == 1:
            tracker.times.append(time.monotonic())
            tracker.clients[address] += 1
            tracker.at_once_max = len(tracker.clients)
            self.transport.sendto(struct.pack(">IIIII", 1, transaction, 1800, 0, 1), address)


def of(runs, subject, key):
    return [run[key] for run in runs if run["subject"] == subject and key in run]


def tables(runs):
    subjects = dict.fromkeys(run["subject"] for run in runs if "per_second" not in run)
    rows = []
    for name in subjects:
        part = next(run.get("torrents", 0) for run in runs if run["subject"] == name)
        each = memory_each(runs, part) if part > 1 else None
        rows.append([name, spread(of(runs, name, "ready_seconds"), 2),
                     f"{statistics.median(of(runs, name, 'anonymous')) / 2**20:.1f}" if part else "",
                     f"{each:.0f}" if each is not None else "",
                     f"{statistics.median(of(runs, name, 'idle_cores')):.2%}" if part else "",
                     max(of(runs, name, "descriptors"), default="")])
    spreads = [[run["subject"], sum(run["per_second"]), len(run["per_second"]), statistics.median(run["per_second"]),
                max(run["per_second"]), run["at_once_max"]] for run in runs if "per_second" in run]
    rows = [[str(cell) for cell in row] for row in rows]
    spreads = [[str(cell) for cell in row] for row in spreads]
    return [("Start, memory and idle cost.", ["subject", "ready, s", "anonymous memory, MiB", "bytes a torrent",
                                              "of a core, idle", "descriptors"], rows),
            ("Announces that a tracker hears after the start.", ["tracker", "announces", "seconds", "a second, median",
                                                                 "busiest second", "sockets at once"], spreads)]


def memory_each(runs, part):
    """Bytes that a torrent costs, from runs with `part` torrents and with one."""
    many, one = of(runs, f"seedring, {part} torrents", "anonymous"), of(runs, "seedring, 1 torrents", "anonymous")
    return (statistics.median(many) - statistics.median(one)) / (part - 1) if many and one else float("nan")


def verdicts(runs):
    parts = [run["torrents"] for run in runs if run.get("torrents", 0) > 1]
    if not parts:
        return []
    part = max(parts)
    name = f"seedring, {part} torrents"
    ready, idle = statistics.median(of(runs, name, "ready_seconds")), statistics.median(of(runs, name, "idle_cores"))
    memory, busiest = memory_each(runs, part), max((max(run["per_second"]) for run in runs if "per_second" in run), default=None)
    return [
        (f"seconds until {part} torrents are served", ready, f"≤ {READY_MAX:g}", ready <= READY_MAX),
        ("bytes of anonymous memory a torrent", memory, f"≤ {MEMORY_MAX}", memory <= MEMORY_MAX),
        ("part of a core, idle", idle, f"≤ {IDLE_MAX}", idle <= IDLE_MAX),
        ("announces in the busiest second", busiest, f"≤ {BUSIEST_MAX}", None if busiest is None else busiest <= BUSIEST_MAX),
    ]
