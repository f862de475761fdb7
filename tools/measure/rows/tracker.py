"""Announces over UDP that one core's tracker answers in a CPU second, beside opentracker."""

import json, os, socket, struct, subprocess, time

from measure.figures import at_least, cell, middle, ratio, subjects

TITLE = "Tracker"
RIVALS = ("opentracker",)
ABOUT = """
Each announce is preceded by its connect, as in the field; 16 source addresses keep 12 requests each in flight, every peer wants 50
others. `one torrent` has 50,000 peers, `10,000 torrents` have 16 each. Both trackers are pinned to one core and serve a
list of info-hashes, which is all that Debian's opentracker does. CPU is the scheduler's count for the tracker's process; on
loopback what it costs to deliver an answer falls on the tracker, too. The load checks the answers, and its own CPU
stands beside them: it must be less than the tracker's. Lost are requests without an answer within 0.2 s.
"""
MIXES = {"one torrent": (1, 50_000), "10,000 torrents": (10_000, 160_000)}
SMOKE_MIXES = {"one torrent": (1, 500), "10,000 torrents": (100, 1_600)}
BAR = 1


def measure(bench):
    if not bench.floors:
        yield {"subject": "seedring", "repetition": 0, "mix": "one by one", **announce_singly(bench)}
        return
    for repetition in range(bench.repetitions):
        for mix, (torrents, peers) in bench.size(MIXES, SMOKE_MIXES).items():
            for subject in ("seedring", *bench.rivals):
                figures = announce(bench, subject, ["--torrents", str(torrents), "--peers", str(peers)])
                bench.say(f"{subject}, {mix}: {figures['announces_per_cpu_second']:.0f} announces per CPU-s")
                yield {"subject": subject, "repetition": repetition, "mix": mix, **figures}


def announce(bench, subject, mix):
    """One tracker's figures from a fresh start."""
    port = free_port()
    load = [bench.floors, "announce", f"127.0.0.1:{port}", *mix]
    hashes = bench.work / "hashes"
    hashes.write_bytes(subprocess.run([*load, "--hashes"], check=True, capture_output=True).stdout)
    core, load_core = bench.cores
    tracker = bench.start(command_of(bench, subject, port, hashes), bench.work / f"{subject}.log", core=core)
    try:
        wait_for_answer(tracker, port)
        times = ["--warm-up", str(bench.size(1, 0.1)), "--seconds", str(bench.seconds)]
        ended = subprocess.run([*load, *times, "--process", str(tracker.pid), "--pin", str(load_core)], check=True,
                               capture_output=True, timeout=60 + bench.seconds)
    finally:
        bench.stop(tracker)
    told = json.loads(ended.stdout)
    if told["bad"] or not told["announces"]:
        raise RuntimeError(f"{subject} gave wrong answers: {told}")
    return {
        "announces_per_cpu_second": told["announces"] / max(told["tracker_cpu_s"], 1e-9),
        "announces_per_second": told["announces"] / told["seconds"],
        "peers_per_answer": told["peers_per_answer"],
        "load_cpu_share": told["load_cpu_s"] / max(told["tracker_cpu_s"], 1e-9),
        "lost": told["lost"],
    }


def announce_singly(bench):
    """Seedring's answers to a few announces, for a smoke run that has no load."""
    port, announces = free_port(), 50
    command = [bench.seedring, "tracker", "--http", "none", "--udp", f"127.0.0.1:{port}"]
    tracker = bench.start(command, bench.work / "seedring.log")
    try:
        started, peers = time.monotonic(), 0
        for number in range(announces):
            connection = wait_for_answer(tracker, port)[8:16]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.settimeout(10)
                peer.sendto(connection + struct.pack(">II20s20sQQQIIIiH", 1, number, b"h" * 20, b"p" * 20, 0, 1, 0, 0, 0, 0, 50,
                                                     1024 + number), ("127.0.0.1", port))
                peers += (len(peer.recv(2048)) - 20) // 6
        return {"announces_per_second": announces / (time.monotonic() - started), "peers_per_answer": peers / announces}
    finally:
        bench.stop(tracker)


def command_of(bench, subject, port, hashes):
    if subject == "seedring":
        return [bench.seedring, "tracker", "--http", "none", "--udp", f"127.0.0.1:{port}", "--allow", hashes]
    # It refuses to work as root. In a user namespace of its own it is nobody, whoever measures.
    os.chmod(hashes.parent, 0o755)
    return ["unshare", "--user", bench.rivals[subject], "-w", hashes.name, "-d", hashes.parent,
            "-i", "127.0.0.1", "-p", str(port), "-P", str(port)]


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_answer(tracker, port):
    """Asks for a connection id until one comes."""
    connect = (0x41727101980).to_bytes(8, "big") + bytes(8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.05)
        probe.connect(("127.0.0.1", port))
        until = time.monotonic() + 20
        while time.monotonic() < until and tracker.poll() is None:
            try:
                probe.send(connect)
                return probe.recv(64)
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                time.sleep(0.05)
    raise RuntimeError("the tracker does not answer")


def tables(runs):
    found = []
    for mix in dict.fromkeys(run["mix"] for run in runs):
        header = ["tracker", "announces per CPU-s", "announces/s", "peers per answer", "load's CPU by tracker's", "lost", "runs"]
        rows = []
        for name in subjects(runs):
            where = {"subject": name, "mix": mix}
            count = sum(run["subject"] == name and run["mix"] == mix for run in runs)
            rows.append([name, cell(runs, "announces_per_cpu_second", 0, **where),
                         cell(runs, "announces_per_second", 0, **where), cell(runs, "peers_per_answer", 1, **where),
                         cell(runs, "load_cpu_share", 2, **where), cell(runs, "lost", 0, **where), str(count)])
        found.append((f"Announces over UDP, {mix}.", header, rows))
    return found


def verdicts(runs):
    found = []
    for mix in dict.fromkeys(run["mix"] for run in runs):
        of = lambda name: middle(runs, "announces_per_cpu_second", subject=name, mix=mix)
        found.append(at_least(f"announces per CPU second against opentracker, {mix}", ratio(of("seedring"), of("opentracker")), BAR))
    return found
