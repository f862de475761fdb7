"""Who comes and goes. Each kind is a thread of its own that does one thing after the other until the end.

What goes wrong by their own will (a connection that they leave) is no complaint; a wrong byte, a refused connection and
a download that ends by itself with an error are.
"""

import random, shutil, socket, struct, subprocess, threading, time

BLOCK_LEN = 16 * 1024
HAVE_NONE, INTERESTED, UNCHOKE, PIECE = b"\0\0\0\x01\x0f", b"\0\0\0\x01\x02", 1, 7


class Crowd:
    """What all clients share: the seeder, the end, the counts and the complaints."""

    def __init__(self, seeder, seedring, folder, core, seed):
        self.seeder, self.seedring, self.folder, self.core, self.seed = seeder, seedring, folder, core, seed
        self.over, self.lock, self.threads = threading.Event(), threading.Lock(), []
        self.counts, self.complaints, self.processes = {}, [], set()

    def count(self, what, amount=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + amount

    def complain(self, text):
        with self.lock:
            self.complaints.append(text)

    def add(self, act, number):
        """Has a client act again and again; `act(crowd, rng, number)` returns when it has had enough of one visit."""
        rng = random.Random(f"{self.seed} {act.__name__} {number}")

        def live():
            while not self.over.is_set():
                try:
                    act(self, rng, number)
                except Exception as error:
                    self.complain(f"{act.__name__}: {type(error).__name__}: {error}")
                    self.over.wait(0.5)

        thread = threading.Thread(target=live, daemon=True)
        self.threads.append(thread)
        thread.start()

    def start(self, command):
        """A process on the load's core, which `leave` ends if need be."""
        process = subprocess.Popen(["taskset", "-c", str(self.core), *map(str, command)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        with self.lock:
            self.processes.add(process)
        return process

    def ended(self, process):
        with self.lock:
            self.processes.discard(process)

    def leave(self):
        """Everybody leaves."""
        self.over.set()
        deadline = time.monotonic() + 60
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
        with self.lock:
            left = list(self.processes)
        for process in left:
            process.kill()
            process.wait()
        stuck = sum(thread.is_alive() for thread in self.threads)
        if stuck:
            self.complain(f"{stuck} clients did not come to their end")


def verifying(crowd, rng, number):
    """A crowd of connections that hash every piece, plain or encrypted, for some seconds."""
    torrent = crowd.seeder.torrents["busy"]
    connections, depth = rng.choice([(50, 40), (50, 4), (10, 100), (1, 1)])
    command = [crowd.seedring, "bench", crowd.seeder.endpoint, torrent.file, "--connections", connections, "--depth", depth,
               "--duration", f"{rng.uniform(1, 6):.2f}s", "--seed", rng.randrange(1 << 30), "--verify"]
    encryption = rng.choice([None, None, "rc4", "plaintext"])
    if encryption:
        command += ["--encryption", encryption]
    process = crowd.start(command)
    try:
        while process.poll() is None:
            if crowd.over.wait(0.1):
                process.kill()
                break
        said = process.stderr.read().strip()
        code = process.wait()
        if code and not crowd.over.is_set():
            crowd.complain(f"bench ({connections} connections, depth {depth}, {encryption}): {said}")
        crowd.count(f"runs of bench, {encryption or 'not encrypted'}")
        crowd.count("connections that verified pieces", connections)
    finally:
        crowd.ended(process)


class Left(Exception):
    """The visit is over, by the client's own will or because everybody leaves."""


class Visit:
    """One connection of this script's own."""

    def __init__(self, crowd, rng, receive_buffer=None):
        self.crowd, self.torrent = crowd, crowd.seeder.torrents["churned"]
        self.socket = socket.socket()
        # A busy machine is slow, which is nobody's fault.
        self.socket.settimeout(30)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(crowd.seeder.address)
        peer_id = b"-SO0001-" + bytes(rng.choices(b"0123456789abcdefghijklmnopqrstuvwxyz", k=12))
        reserved = bytes(7) + b"\x04"
        self.handshake = b"\x13BitTorrent protocol" + reserved + self.torrent.info_hash + peer_id

    def say(self, data):
        self.socket.settimeout(30)
        self.socket.sendall(data)

    def read(self, length):
        data = bytearray()
        self.socket.settimeout(0.5)
        while len(data) < length:
            if self.crowd.over.is_set():
                raise Left
            try:
                part = self.socket.recv(length - len(data))
            except TimeoutError:
                continue
            if not part:
                raise ConnectionError("the seeder closed the connection")
            data += part
        return bytes(data)

    def message(self):
        length = int.from_bytes(self.read(4), "big")
        return self.read(length)

    def join(self):
        self.say(self.handshake + HAVE_NONE + INTERESTED)
        self.read(68)
        while self.message()[:1] != bytes([UNCHOKE]):
            pass

    def ask(self, rng, count):
        """Requests of random blocks."""
        blocks = self.torrent.length // BLOCK_LEN
        asked = []
        for _ in range(count):
            at = rng.randrange(blocks) * BLOCK_LEN
            asked.append((at // (256 * 1024), at % (256 * 1024)))
        self.say(b"".join(struct.pack(">IBIII", 13, 6, piece, begin, BLOCK_LEN) for piece, begin in asked))
        return asked

    def take(self, content, asked, count):
        """Reads so many blocks and compares them; they come in the order in which they were asked for."""
        for piece, begin in asked[:count]:
            message = self.message()
            while message[:1] != bytes([PIECE]):
                message = self.message()
            told = struct.unpack(">II", message[1:9])
            content.seek(piece * 256 * 1024 + begin)
            if told != (piece, begin) or message[9:] != content.read(BLOCK_LEN):
                self.crowd.complain(f"wrong bytes in piece {piece} at {begin}")
            self.crowd.count("blocks compared")

    def close(self, abruptly):
        if abruptly:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def leaving(crowd, rng, number):
    """Comes, goes as far as it likes, and leaves in the middle of it."""
    how_far = rng.randrange(6)
    visit = Visit(crowd, rng)
    try:
        if how_far == 0:
            visit.say(visit.handshake[: rng.randrange(68)])
        elif how_far == 1:
            visit.say(visit.handshake + HAVE_NONE)
            visit.read(rng.randrange(1, 69))
        else:
            visit.join()
            with open(visit.torrent.path, "rb") as content:
                asked = visit.ask(rng, rng.randrange(1, 250))
                visit.take(content, asked, len(asked) if how_far == 2 else rng.randrange(len(asked)))
            if how_far == 3:
                # In the middle of a block, which has begun to come or not.
                visit.ask(rng, 50)
                visit.read(rng.randrange(1, 40_000))
        crowd.count("connections that left at a random moment")
    except Left:
        pass
    finally:
        visit.close(abruptly=rng.random() < 0.5)


def idling(crowd, rng, number):
    """Joins, wants nothing, and stays for a while."""
    visit = Visit(crowd, rng)
    try:
        visit.say(visit.handshake + HAVE_NONE)
        visit.read(68)
        crowd.count("idle connections")
        crowd.over.wait(rng.uniform(5, 40))
    except Left:
        pass
    finally:
        visit.close(abruptly=False)


def not_reading(crowd, rng, number):
    """Asks for much, reads nothing, and leaves."""
    visit = Visit(crowd, rng, receive_buffer=8192)
    try:
        visit.join()
        visit.ask(rng, 240)
        crowd.count("connections that did not read")
        crowd.over.wait(rng.uniform(3, 15))
    except Left:
        pass
    finally:
        visit.close(abruptly=rng.random() < 0.5)


def fetching(crowd, rng, number):
    """Downloads with the program itself; is killed twice on the way and has everything right in the end."""
    torrent, folder = crowd.seeder.torrents["fetched"], crowd.folder / f"fetch-{number}"
    command = [crowd.seedring, "get", torrent.file, "-o", folder, "--peer", crowd.seeder.endpoint, "--bind", "127.0.0.1",
               "--port", "0", "--workers", "1", "--no-pin", "--download-limit", f"{torrent.length // 4}B/s",
               "--state-dir", folder / "state"]
    try:
        for kills_left in (2, 1, 0):
            process = crowd.start(command)
            until = time.monotonic() + rng.uniform(0.2, 2)
            while process.poll() is None and not crowd.over.is_set() and (kills_left == 0 or time.monotonic() < until):
                crowd.over.wait(0.05)
            killed = process.poll() is None
            process.kill()
            said, code = process.stderr.read().strip(), process.wait()
            crowd.ended(process)
            if crowd.over.is_set():
                return
            if killed:
                crowd.count("downloads killed")
            elif code:
                crowd.complain(f"get ended with {code}: {said[-300:]}")
                return
            else:
                break
        crowd.count("downloads completed")
        if (folder / torrent.name).read_bytes() != torrent.path.read_bytes():
            crowd.complain("a download differs from the content")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
