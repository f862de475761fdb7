"""What simulated swarms cost as they grow: events in a CPU second beside a bare heap of events, and memory."""

import json, os, subprocess, time

from measure import plots as drawn
from measure.bench import resident
from measure.figures import at_least, at_most, cell, middle, pick, ratio, subjects

TITLE = "Laboratory"
SHARE = 6
ABOUT = """
`seedring lab distribute` on one core: one seed of 20 MB/s and N peers of 2 MB/s up and 20 MB/s down that come at once, each
with up to 80 connections. The 256 MiB of 1,024 pieces are simulated with 16 blocks a piece for 10 peers, with 8 at half the
rates for more. An event is what the simulator takes from its queue: a packet sent, a packet arrived, a timer, a piece
stored; a packet carries up to one block and any number of other messages, of which most are haves. CPU is user and system
time of the whole process, from its start to its end; memory is the most that was resident. The floor takes as many events
from a binary heap and puts as many in, and does nothing else.
"""
FLOOR = "floor: bare heap"
EVENTS_BAR, MEMORY_BAR = 1e6, 4 << 30
THOUSAND, FEW = "1,024 pieces, 256 MiB", "64 pieces, 16 MiB"
CONTENTS = {THOUSAND: "256MiB", FEW: "16MiB"}
#: Ten thousand peers with a thousand pieces would take most of an hour.
SIZES = {THOUSAND: (10, 100, 1000), FEW: (10, 100, 1000, 10_000)}
SMOKE_SIZES = {FEW: (5, 10)}


def measure(bench):
    for repetition in range(bench.repetitions):
        sizes_of = bench.size(SIZES, SMOKE_SIZES)
        for content, sizes in sizes_of.items():
            for peers in sizes:
                # What takes minutes is not repeated.
                if peers > 1000 and repetition > 0:
                    continue
                figures = simulate(bench, CONTENTS[content], peers)
                bench.say(f"{peers} peers, {content}: {figures['events_per_cpu_second'] / 1e6:.2f} M events per CPU-s, "
                          f"{figures['cpu_seconds']:.1f} CPU-s, {figures['memory'] / 2**20:.0f} MiB")
                yield {"subject": content, "repetition": repetition, "peers": peers, **figures}
                if content == next(iter(sizes_of)) and peers == max(sizes) and bench.floors:
                    yield {"subject": FLOOR, "repetition": repetition, "peers": peers, **floor(bench, figures["events"], peers)}


def simulate(bench, size, peers):
    """One run from start to end."""
    log, complaints = bench.work / "distribute.json", bench.work / "distribute.log"
    command = [bench.seedring, "lab", "distribute", "--size", size, "--server-up", "20MB/s", "--peer-up", "2MB/s",
               "--peer-down", "20MB/s", "--peers", str(peers), "--runs", "1", "--json"]
    with open(log, "wb") as out, open(complaints, "wb") as err:
        process = subprocess.Popen(["taskset", "-c", str(bench.cores[0]), *map(str, command)], stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=err)
    started, memory, ended = time.monotonic(), 0, 0
    try:
        while not ended:
            # The kernel's word at the end would be that of this process, too, from before it became the other.
            memory = max(memory, resident(process.pid).get("VmHWM", 0))
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0.02 if not ended else 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if not ended:
            process.kill()
            process.wait()
    seconds = time.monotonic() - started
    if process.returncode != 0:
        said = complaints.read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"lab distribute with {peers} peers ended with {process.returncode}: {' '.join(said[-1:])}")
    [row] = json.loads(log.read_text())["rows"]
    [run] = row["runs"]
    if run["slowest_seconds"] is None:
        raise RuntimeError(f"not all of {peers} peers had everything")
    cpu = usage.ru_utime + usage.ru_stime
    return {"events": run["events"], "cpu_seconds": cpu, "seconds": seconds, "memory": memory,
            "events_per_cpu_second": run["events"] / max(cpu, 1e-9), "slowest_seconds": run["slowest_seconds"],
            "trace": run["trace"]}


def floor(bench, events, peers):
    command = ["taskset", "-c", str(bench.cores[0]), bench.floors, "events", "--count", str(events),
               "--pending", str(100 * peers)]
    ended = subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=600)
    told = json.loads(ended.stdout)
    return {"events": events, "cpu_seconds": told["cpu_seconds"],
            "events_per_cpu_second": events / max(told["cpu_seconds"], 1e-9)}


def tables(runs):
    lines = []
    for subject in subjects(runs):
        for peers in dict.fromkeys(pick(runs, "peers", subject=subject)):
            where = {"subject": subject, "peers": peers}
            memory = middle(runs, "memory", **where)
            lines.append([
                subject, f"{peers:,}", cell(millions(runs, "events"), "events", 2, **where),
                cell(millions(runs, "events_per_cpu_second"), "events_per_cpu_second", 2, **where),
                cell(runs, "cpu_seconds", 2, **where), f"{memory / 2**20:.0f}" if memory else "-",
                f"{memory / peers / 1024:.0f}" if memory else "-", cell(runs, "slowest_seconds", 1, **where),
                len(pick(runs, "events", **where))])
    return [("Swarms on one core:", ["content", "peers", "M events", "M events per CPU-s", "CPU-s", "MiB at most",
                                     "KiB a peer", "slowest peer, simulated s", "runs"], lines)]


def millions(runs, key):
    return [{**run, key: run[key] / 1e6} for run in runs if key in run]


def verdicts(runs):
    thousand = {"subject": THOUSAND, "peers": 1000}
    rate = middle(runs, "events_per_cpu_second", **thousand)
    bare = middle(runs, "events_per_cpu_second", subject=FLOOR)
    most = middle(runs, "memory", subject=FEW, peers=10_000)
    return [
        at_least("million events in a CPU second, 1,000 peers and 1,024 pieces",
                 None if rate is None else rate / 1e6, EVENTS_BAR / 1e6),
        ("the same in parts of the bare heap's", ratio(rate, bare), "-", None),
        at_most("GiB of memory for 10,000 peers", None if most is None else most / 2**30, MEMORY_BAR / 2**30),
    ]


def plots(runs):
    steps = sorted({run["peers"] for run in runs})

    def series(key, scale):
        return {name: {step: [value * scale for value in pick(runs, key, subject=name, peers=step)] for step in steps}
                for name in subjects(runs) if name != FLOOR}

    return [
        ("rate", drawn.over_steps("Events in a CPU second", "peers", "million events", steps,
                                  series("events_per_cpu_second", 1e-6))),
        ("memory", drawn.over_steps("Memory of a simulated swarm", "peers", "MiB", steps, series("memory", 2**-20), True)),
        ("time", drawn.over_steps("CPU time of a simulated swarm", "peers", "CPU seconds", steps,
                                  series("cpu_seconds", 1), True)),
    ]
