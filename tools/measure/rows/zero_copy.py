"""What sending without a copy is worth: over an emulated device that really does not copy, on loopback and on veth."""

import json, os, pathlib, re, subprocess, time, urllib.request

from rivals import byte_size, free_port
from measure.figures import at_most, cell, middle, pick, ratio

TITLE = "Zero copy"
SHARE = 2
ABOUT = """
The device: one end of a veth pair, whose other end drops payload before the kernel's receive path copies it and
acknowledges it with frames of its own (`floors nocopy-sink`). It has no driver, no DMA and no loss, so this is the most
that zero copy can save. Loopback and plain veth copy every such send at delivery; there `seedring bench` receives, on
veth in a network namespace of its own. Each seeder runs on one core with one worker, the receiver on another, and peers keep
`depth` requests of 16 KiB in flight: at the device half of them are asked for together, so that sends carry 256 KiB at
32 and 1 MiB at 128. Cost is time on a processor: at the device the seeder's and that of the kernel's softirq thread on its core,
to which acknowledgements are steered; on loopback and veth that of both processes, since delivery is charged to either. Congestion control is Reno. Copied: notifications of zero-copy sends that report a copy. Modes: `--zero-copy`.
"""
MODES = ("never", "always", "auto")
SEEDER, RECEIVER, NOBODY = "10.46.0.1", "10.46.1.2", "10.46.0.2"
#: What every network namespace may be set to. Without loss it does what Linux' default does, while BBR, which some
#: machines have as theirs, paces by timers, whose cost in a virtual machine hides what a copy costs.
CONGESTION_CONTROL = "reno"
#: Bytes of a send from which `always` has to be ahead.
LARGE = 512 * 1024


def add_arguments(parser):
    parser.add_argument("--zero-copy-size", type=byte_size, default=1 << 30, help="of the content [default: 1GiB]")
    parser.add_argument("--zero-copy-connections", default="1,16,64", help="[default: 1,16,64]")
    parser.add_argument("--zero-copy-depths", default="16,32,128", help="at the device [default: 16,32,128]")


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Paths:
    """The devices, in the network namespace that this process has for itself; they go with it."""

    def __init__(self, bench):
        self.elsewhere = None
        pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(CONGESTION_CONTROL)
        ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        ip("addr", "add", f"{SEEDER}/24", "dev", "near")
        # Nobody would answer who has which address.
        ip("link", "set", "near", "arp", "off", "up")
        ip("link", "set", "far", "up")
        # Acknowledgements are the seeder's work, as on a device whose interrupts go to its core.
        steer = f"mount -t sysfs none /sys && echo {1 << bench.cores[0]:x} > /sys/class/net/near/queues/rx-0/rps_cpus"
        subprocess.run(["unshare", "--mount", "sh", "-c", steer], check=True, capture_output=True)
        self.elsewhere = bench.start(["unshare", "--net", "sh", "-c", "echo there; exec sleep infinity"],
                                     bench.work / "elsewhere")
        wait_for(lambda: (bench.work / "elsewhere").read_text().startswith("there"), "a second network namespace")
        ip("link", "add", "wire", "type", "veth", "peer", "name", "wired", "netns", str(self.elsewhere.pid))
        ip("addr", "add", "10.46.1.1/24", "dev", "wire")
        ip("link", "set", "wire", "up")
        for words in (["addr", "add", f"{RECEIVER}/24", "dev", "wired"], ["link", "set", "wired", "up"]):
            subprocess.run([*self.receiver("veth"), "ip", *words], check=True, capture_output=True)

    def receiver(self, path):
        """What a receiver's command begins with."""
        return ["nsenter", f"--net=/proc/{self.elsewhere.pid}/ns/net"] if path == "veth" else []


def wait_for(answer, what, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = answer()
        except (OSError, IndexError, ValueError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {seconds} s")
        time.sleep(0.02)


class Seeder:
    """A seeder in one mode, on all addresses."""

    def __init__(self, bench, mode, content, torrent):
        self.mode, self.port, self.metrics = mode, free_port(), free_port()
        self.core, self.log = bench.cores[0], bench.work / f"seeder-{mode}.log"
        self.process = bench.start(
            [bench.seedring, "seed", torrent, "--data", content, "--port", self.port, "--tracker-port", 0, "--workers", 1,
             "--no-pin", "--upload-slots", 1000, "--json", "--zero-copy", mode, "--metrics", f"127.0.0.1:{self.metrics}",
             "--state-dir", bench.work / f"state-{mode}"], self.log, core=self.core)

    def wait_until_ready(self):
        wait_for(lambda: '"started"' in self.log.read_text(), f"the seeder with --zero-copy {self.mode}")

    def counters(self):
        """What its worker has counted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return {name: float(value) for name, value in re.findall(r"^seedring_worker_(\w+)_total\{.*?\} (\S+)$", text, re.M)}


def on_processor(pid):
    """Nanoseconds that a process with all its threads has run."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").iterdir())


def softirq_thread(core):
    """The kernel's thread that takes over what comes in on a core when it is too much for interrupts."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        if (process / "comm").read_text().strip() == f"ksoftirqd/{core}":
            return int(process.name)
    raise OSError(f"no softirq thread for core {core}")


def run(bench, paths, seeder, path, torrent, connections, depth, repetition):
    """One run; what it costs for each GiB."""
    seconds = max(1, round(bench.seconds))
    if path == "device":
        command = [bench.floors, "nocopy-sink", f"{SEEDER}:{seeder.port}", torrent, "--near", "near", "--far", "far",
                   "--address", NOBODY, "--connections", connections, "--depth", depth, "--seconds", seconds,
                   "--pin", bench.cores[1]]
    else:
        host = "127.0.0.1" if path == "loopback" else "10.46.1.1"
        command = [*paths.receiver(path), bench.seedring, "bench", f"{host}:{seeder.port}", torrent, "--connections",
                   connections, "--depth", depth, "--duration", f"{seconds}s", "--pin", bench.cores[1], "--json"]
    before, thread = seeder.counters(), softirq_thread(seeder.core)
    ran, softirq = on_processor(seeder.process.pid), on_processor(thread)
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=seconds + 30)
    ran, softirq = on_processor(seeder.process.pid) - ran, on_processor(thread) - softirq
    if done.returncode != 0:
        raise OSError(f"{path}, {connections} connections: {done.stderr.strip()}")
    found = {name: value - before[name] for name, value in seeder.counters().items()}
    gib, last = found["payload_sent_bytes"] / (1 << 30), json.loads(done.stdout.splitlines()[-1])
    figures = {
        "subject": seeder.mode, "repetition": repetition, "path": path, "connections": connections, "depth": depth,
        "seeder_cpu_seconds_per_gib": ran / 1e9 / gib, "softirq_seconds_per_gib": softirq / 1e9 / gib, "gib": gib,
        "batch_bytes": found["sent_bytes"] / max(1, found["sends"]),
        "zero_copy_share": found["zero_copy_bytes"] / found["sent_bytes"],
        "zero_copy_sends": found["zero_copy_sends"], "zero_copy_copied": found["zero_copy_copied"],
    }
    if path == "device":
        figures |= {"gib_per_second": last["bytes"] / (1 << 30) / (last["nanos"] / 1e9),
                    "cost": figures["seeder_cpu_seconds_per_gib"] + figures["softirq_seconds_per_gib"]}
    else:
        load = last["own_cpu_seconds"] / gib
        figures |= {"gib_per_second": gib / seconds, "load_cpu_seconds_per_gib": load,
                    "cost": figures["seeder_cpu_seconds_per_gib"] + load}
    return figures


def measure(bench):
    if os.geteuid() != 0 or not bench.floors:
        return bench.leave_out("zero copy", "needs root, and the floors")
    folder, torrent = bench.memory / "zero-copy", bench.memory / "zero-copy.torrent"
    content = bench.content(folder / "content.bin", bench.size(bench.options.zero_copy_size, 4 << 20))
    bench.torrent(content, torrent)
    paths, counts = Paths(bench), [int(count) for count in bench.options.zero_copy_connections.split(",")]
    depths = [int(depth) for depth in bench.options.zero_copy_depths.split(",")]
    plan = [("device", count, depth) for depth in depths for count in counts]
    plan += [(path, count, depths[-1]) for path in ("loopback", "veth") for count in counts]
    if bench.smoke:
        plan = [("device", 2, 32)]
    # All are there from the beginning; who is not asked sleeps.
    seeders = [Seeder(bench, mode, folder, torrent) for mode in MODES]
    for seeder in seeders:
        seeder.wait_until_ready()
    for repetition in range(bench.repetitions):
        for path, connections, depth in plan:
            for seeder in seeders:
                figures = run(bench, paths, seeder, path, torrent, connections, depth, repetition)
                bench.say(f"{path}, {connections} x {depth}, {seeder.mode}: {figures['cost']:.3f} s/GiB "
                          f"(process {figures['seeder_cpu_seconds_per_gib']:.3f}), {figures['gib_per_second']:.2f} GiB/s, "
                          f"sends of {figures['batch_bytes'] / 1024:.0f} KiB, {figures['zero_copy_share']:.0%} without copy, "
                          f"{figures['zero_copy_copied']:.0f} of {figures['zero_copy_sends']:.0f} copied")
                yield figures


def cases(runs):
    """Path, connections and depth, in the order of the runs."""
    return list(dict.fromkeys((run["path"], run["connections"], run["depth"]) for run in runs))


def tables(runs):
    found = []
    for path in dict.fromkeys(run["path"] for run in runs):
        header = ["connections", "depth", "mode", "cost, s per GiB", "seeder's CPU-s per GiB", "GiB/s", "KiB a send",
                  "bytes sent without copy", "copied all the same"]
        rows = []
        for _, connections, depth in (case for case in cases(runs) if case[0] == path):
            for mode in MODES:
                here = {"subject": mode, "path": path, "connections": connections, "depth": depth}
                sends, copied = (sum(pick(runs, f"zero_copy_{what}", **here)) for what in ("sends", "copied"))
                rows.append([
                    str(connections), str(depth), mode, cell(runs, "cost", 3, **here),
                    cell(runs, "seeder_cpu_seconds_per_gib", 3, **here), cell(runs, "gib_per_second", 2, **here),
                    f"{(middle(runs, 'batch_bytes', **here) or 0) / 1024:.0f}",
                    f"{middle(runs, 'zero_copy_share', **here) or 0:.0%}",
                    f"{copied / sends:.0%} of {sends:.0f}" if sends else "-",
                ])
        found.append((f"{path.capitalize()}:", header, rows))
    return found


def verdicts(runs):
    found = []
    for path, connections, depth in cases(runs):
        here = {"path": path, "connections": connections, "depth": depth}
        never, always, auto = (middle(runs, "cost", subject=mode, **here) for mode in MODES)
        at = f"{path}, {connections} connection{'s' if connections > 1 else ''}, depth {depth}"
        if path == "device" and (middle(runs, "batch_bytes", subject="never", **here) or 0) >= LARGE:
            share = ratio(always, never)
            found.append((f"{at}: always against never", share, "< 1", None if share is None else share < 1))
        if None not in (never, always):
            found.append(at_most(f"{at}: auto against the better of both", ratio(auto, min(never, always)), 1.05))
    device = [run for run in runs if run["path"] == "device" and run["zero_copy_sends"]]
    if device:
        copied = sum(run["zero_copy_copied"] for run in device)
        # A send that is under way when its connection is reset counts as copied, since it never went out.
        share = copied / sum(run["zero_copy_sends"] for run in device)
        found.append(("zero-copy sends that the device's kernel copied, of all", share, "≤ 0.002", share <= 0.002))
    return found
