"""What a crowd costs: 1,000 connections that ask beside 10,000 that are silent, and 50 beside idle, half-open and slow ones."""

import contextlib, itertools, socket, struct, threading, time

from rivals import byte_size
from measure.bench import resident
from measure.figures import at_least, at_most, cell, middle, pick, ratio, subjects
from measure.seeders import HOST, Content, Seeder

TITLE = "Crowds"
SHARE = 2
ABOUT = """
Connections that ask keep 40 requests of 16 KiB in flight each. Idle ones have introduced themselves and say nothing; half-open
ones stop in the middle of their handshake and come again when they are closed; slow ones have asked for 256 blocks and read
one byte a second. A crowd is there for three seconds before the load begins, since who has just come counts as active for two.
Memory is anonymous memory of the whole seeder before and after 10,000 idle connections have come, for each of them. Jain's
index is that of the bytes that each connection got, all asking alike, from its unchoke to the end of the run.
"""
FEW, MANY = 50, 1000
IDLE, HALF_OPEN, SLOW = 10_000, 2_000, 200
DEPTH = 40
COST_BAR, IDLE_KIB_BAR, JAIN_BAR = 1.3, 4, 0.95
# A thousand connections need some seconds until it does not matter any more which came first.
MANY_SECONDS = 6

INTERESTED, HAVE_NONE, UNCHOKE = b"\0\0\0\x01\x02", b"\0\0\0\x01\x0f", 1


def add_arguments(parser):
    parser.add_argument("--crowd-size", type=byte_size, default=1 << 30, help="of the content [default: 1GiB]")


class Crowded(Seeder):
    """Seedring with slots for everybody who asks, so that nobody waits for a round of the choker."""

    def command(self, state):
        return [*super().command(state), "--upload-slots", str(2 * MANY)]


NUMBERS = itertools.count()


class Peers:
    """Connections that this process holds."""

    def __init__(self, seeder, count):
        self.seeder, self.count, self.sockets = seeder, count, []

    def connect(self, receive_buffer=None):
        peer = socket.socket()
        # A reset when it is closed: ports that linger would run out.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if receive_buffer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sockets.append(peer)
        peer.settimeout(30)
        peer.connect((HOST, self.seeder.port))
        return peer

    def handshake(self):
        # A name that nobody had before: those who are just gone may not be forgotten yet, and would be taken for the same.
        name = b"-XX0000-%012d" % next(NUMBERS)
        return b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04" + self.seeder.info_hash + name

    def close(self):
        for peer in self.sockets:
            peer.close()
        self.sockets = []


class Idle(Peers):
    def open(self):
        for _ in range(self.count):
            self.connect().sendall(self.handshake() + HAVE_NONE)
        for peer in self.sockets:
            exactly(peer, 68)


class HalfOpen(Peers):
    def open(self):
        self.leaving = threading.Event()
        self.come()
        self.thread = threading.Thread(target=self.renew, daemon=True)
        self.thread.start()

    def come(self):
        for _ in range(self.count):
            self.connect().sendall(b"\x13Bit")

    def renew(self):
        # A seeder gives a handshake ten seconds.
        while not self.leaving.wait(11):
            super().close()
            self.come()

    def close(self):
        self.leaving.set()
        self.thread.join()
        super().close()


class Slow(Peers):
    def open(self):
        requests = b"".join(b"\0\0\0\x0d\x06" + struct.pack(">III", block // 16, block % 16 * 16384, 16384)
                            for block in range(256))
        for _ in range(self.count):
            peer = self.connect(receive_buffer=4096)
            peer.sendall(self.handshake() + HAVE_NONE + INTERESTED)
            exactly(peer, 68)
            while True:
                message = exactly(peer, int.from_bytes(exactly(peer, 4), "big"))
                if message[:1] == bytes([UNCHOKE]):
                    break
            peer.sendall(requests)
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self.sip, daemon=True)
        self.thread.start()

    def sip(self):
        while not self.leaving.wait(1):
            for peer in self.sockets:
                peer.recv(1)

    def close(self):
        self.leaving.set()
        self.thread.join()
        super().close()


def exactly(peer, length):
    data = b""
    while len(data) < length:
        part = peer.recv(length - len(data))
        if not part:
            raise ConnectionError("the seeder closed the connection")
        data += part
    return data


@contextlib.contextmanager
def beside(bench, peers):
    """With these connections there."""
    try:
        peers.open()
        time.sleep(bench.size(3, 0))
        yield peers
    finally:
        peers.close()


def measure(bench):
    content = Content(bench, bench.work, bench.size(bench.options.crowd_size, 4 << 20))
    few, many, idle, half_open, slow = ((5, 20, 50, 20, 3) if bench.smoke else (FEW, MANY, IDLE, HALF_OPEN, SLOW))
    seeder = Crowded(bench, "seedring", content)
    if not seeder.start():
        raise RuntimeError("seedring does not serve")
    seeder.info_hash = info_hash(content.torrent)

    def run(subject, repetition, asking, seconds, **more):
        found = seeder.measure(asking, DEPTH, "--burst", 64, seconds=seconds)
        if found is None:
            return None
        bench.say(f"{subject}: {found.get('cpu_seconds_per_gib', 0):.3f} CPU-s/GiB, {found['gib_per_second']:.2f} GiB/s, "
                  f"Jain {found['jain']:.3f}")
        return {**found, "subject": subject, "repetition": repetition, **more}

    short, long = bench.seconds, bench.size(max(MANY_SECONDS, bench.seconds), bench.seconds)
    for repetition in range(bench.repetitions):
        runs = []
        # First, while the allocator has little to give away.
        before = resident(seeder.process.pid)["RssAnon"]
        with beside(bench, Idle(seeder, idle)):
            kib = (resident(seeder.process.pid)["RssAnon"] - before) / 1024 / idle
            bench.say(f"{kib:.2f} KiB for each idle connection")
            # Afterwards the allocator has pages to give away.
            more = {"idle_kib": kib} if repetition == 0 else {}
            runs.append(run(MANY_BESIDE_IDLE, repetition, many, long, **more))
            runs.append(run(FEW_BESIDE_IDLE, repetition, few, short))
        runs.append(run(FEW_ALONE, repetition, few, short))
        yield from (found for found in runs if found is not None)
        found = run(MANY_ALONE, repetition, many, long)
        if found is not None:
            yield found
        for subject, peers in ((FEW_BESIDE_HALF_OPEN, HalfOpen(seeder, half_open)), (FEW_BESIDE_SLOW, Slow(seeder, slow))):
            with beside(bench, peers):
                found = run(subject, repetition, few, short)
            if found is not None:
                yield found


FEW_ALONE, MANY_ALONE = f"{FEW} alone", f"{MANY:,} alone"
FEW_BESIDE_IDLE, MANY_BESIDE_IDLE = f"{FEW} beside {IDLE:,} idle", f"{MANY:,} beside {IDLE:,} idle"
FEW_BESIDE_HALF_OPEN, FEW_BESIDE_SLOW = f"{FEW} beside {HALF_OPEN:,} half-open", f"{FEW} beside {SLOW} slow"


def info_hash(torrent):
    """SHA-1 of the info dictionary, which is the last entry of a torrent that `seedring create` has made."""
    import hashlib
    whole = torrent.read_bytes()
    start = whole.index(b"4:info") + 6
    return hashlib.sha1(whole[start:-1]).digest()


def tables(runs):
    columns = [("cpu_seconds_per_gib", 3), ("gib_per_second", 2), ("p50_ms", 1), ("p99_ms", 1), ("jain", 3), ("served", 0),
               ("anonymous_mib", 0), ("load_cpu_seconds_per_gib", 3)]
    rows = [[name, *(cell(runs, key, digits, subject=name) for key, digits in columns), len(pick(runs, "jain", subject=name))]
            for name in subjects(runs)]
    return [("Connections that ask, beside others:",
             ["asking", "CPU-s per GiB", "GiB/s", "p50 ms", "p99 ms", "Jain", "served", "anonymous MiB",
              "load's CPU-s per GiB", "runs"], rows)]


def verdicts(runs):
    cost = lambda name: middle(runs, "cpu_seconds_per_gib", subject=name)
    jain = middle(runs, "jain", subject=MANY_BESIDE_IDLE)
    return [
        at_most(f"CPU per GiB of {MANY_BESIDE_IDLE}, against {FEW_ALONE}",
                ratio(cost(MANY_BESIDE_IDLE), cost(FEW_ALONE)), COST_BAR),
        at_most("KiB of anonymous memory for an idle connection", middle(runs, "idle_kib"), IDLE_KIB_BAR),
        at_least(f"Jain's index of {MANY_BESIDE_IDLE}", jain, JAIN_BAR),
    ]
