"""The run: starts the seeder and the crowd, takes a sample each second, and judges at the end."""

import argparse, datetime, json, os, pathlib, platform, resource, signal, statistics, subprocess, sys, tempfile, time

import rivals
from soaking import clients, record
from soaking.seeder import Seeder

#: Growth of anonymous memory that is no leak: a part of what there is, and what happens to be in flight: fifty
#: encrypted connections hold a quarter of a mebibyte each.
GROWTH_MAX, GROWTH_SLACK = 0.10, 16 << 20
#: Seconds that the seeder has to close the connections of those who have left.
CLOSING_SECONDS = 30
HIDDEN = ("programs", "output", "work")


def arguments_of(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--size", default="512MiB", help="of all content [default: 512MiB]")
    parser.add_argument("--seed", type=int, default=1, help="of what the clients do")
    parser.add_argument("--swarms", type=int, default=5000, help="simulated swarms, from seed 1 on; 0 leaves them out")
    parser.add_argument("--smoke", action="store_true", help="some seconds, small, nothing recorded")
    parser.add_argument("--programs", help="where seedring is [default: it is built, --release]")
    parser.add_argument("--seeder-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=min(1, os.cpu_count() - 1))
    parser.add_argument("--work", help="a folder on a disk [default: the one for temporary files]")
    parser.add_argument("--output", help="where the record goes [default: benches/record]")
    options = parser.parse_args()
    if options.smoke:
        options.minutes, options.size, options.swarms = 0.1, "16MiB", min(options.swarms, 8)
    return parser, options


def main(description):
    parser, options = arguments_of(description)
    # An ended run ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seedring = built(options)
    version = rivals.first_line([seedring, "--version"])
    swarms = simulate(seedring, options.swarms)
    # The clients of this script's own are threads of this process.
    os.sched_setaffinity(0, {options.load_core})
    rivals.isolate(1)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=options.work) as folder:
        report = soak(seedring, pathlib.Path(folder), options)
    report["swarms"] = swarms
    report["verdicts"].append(verdict_of_swarms(swarms, options.swarms))
    report["complaints"] += [f"seed {failure['seed']}: {failure['what']}; replay: seedring lab check --seed "
                             f"{failure['seed']}" for failure in swarms.get("failures", [])]
    report.update({
        "date": datetime.date.today().isoformat(), "kernel": platform.release(), "cpu": rivals.cpu_model(),
        "cores": os.cpu_count(), "version": version, "seeder_core": options.seeder_core, "load_core": options.load_core,
        "command": " ".join(["tools/soak", *rivals.shown_options(parser, options, HIDDEN)])})
    for what, measured, bar, holds in report["verdicts"]:
        print(f"{'holds ' if holds else 'MISSED'}  {what}: {measured}; bar: {bar}")
    for complaint in report["complaints"][:20]:
        print(f"complaint: {complaint}")
    if not options.smoke:
        print(record.write(report, pathlib.Path(options.output or rivals.ROOT / "benches/record")))
    return 0 if all(holds for *_, holds in report["verdicts"]) else 1


def simulate(seedring, count):
    """What `seedring lab check` finds in so many swarms drawn by chance; before the machine is the seeder's."""
    if count < 1:
        return {"runs": 0, "failures": []}
    print(f"checking {count} simulated swarms", file=sys.stderr)
    command = [seedring, "lab", "check", "--seeds", f"1..{count}", "--json"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    try:
        return json.loads(ended.stdout)
    except ValueError:
        return {"runs": 0, "failures": [{"seed": 0, "what": f"seedring lab check ended with {ended.returncode}"}]}


def verdict_of_swarms(swarms, count):
    failed, runs = len(swarms["failures"]), swarms["runs"]
    return ("simulated swarms in which something did not hold that must", f"{failed} of {runs}", "none",
            failed == 0 and runs == max(count, 0))


def soak(seedring, folder, options):
    seeder = Seeder(seedring, folder, rivals.byte_size(options.size), options.seeder_core)
    crowd = clients.Crowd(seeder, seedring, folder, options.load_core, options.seed)
    try:
        return watch(seeder, crowd, options)
    finally:
        crowd.leave()
        seeder.stop()


def watch(seeder, crowd, options):
    # A first connection makes what the first one makes, and is gone again.
    before, samples = seeder.sample(), []
    small = options.smoke
    for act, count in ((clients.verifying, 1 if small else 2), (clients.leaving, 4 if small else 16),
                       (clients.idling, 10 if small else 200), (clients.not_reading, 2 if small else 10),
                       (clients.fetching, 1)):
        for number in range(count):
            crowd.add(act, number)
    began, seconds = time.monotonic(), options.minutes * 60
    while (elapsed := time.monotonic() - began) < seconds and seeder.process.poll() is None:
        samples.append({"seconds": round(elapsed, 2), **seeder.sample()})
        time.sleep(min(1, seconds / 20))
    status = seeder.last
    crowd.leave()
    alive = seeder.process.poll() is None
    descriptors = seeder.wait_for_descriptors(before["descriptors"], CLOSING_SECONDS) if alive else None
    after = seeder.sample() if alive else samples[-1]
    code = seeder.stop()
    complaints = crowd.complaints + [f"seeder: {problem}" for problem in seeder.problems]
    if not alive or code:
        complaints.append(f"the seeder ended with {code}: {seeder.log.read_text()[-500:]}")
    return {
        "seconds": samples[-1]["seconds"], "samples": samples, "before": before, "after": after,
        "served_bytes": after["served"], "cpu_seconds": after["cpu_seconds"] - before["cpu_seconds"],
        "connections_max": max(sample["connections"] for sample in samples), "counts": crowd.counts,
        "complaints": complaints, "waited_seconds": waited(status), "histograms": status.get("histograms", {}),
        "verdicts": verdicts(samples, before, descriptors, complaints, crowd.counts)}


def verdicts(samples, before, descriptors, complaints, counts):
    quarter, end = around(samples, 0.25), around(samples, 0.9)
    growth, allowed = end - quarter, GROWTH_MAX * quarter + GROWTH_SLACK
    mebibytes = lambda number: f"{number / 2**20:.1f} MiB"
    wrong = [complaint for complaint in complaints if "wrong" in complaint or "differs" in complaint]
    compared = counts.get("connections that verified pieces", 0) + counts.get("blocks compared", 0)
    return [
        ("RssAnon at a quarter of the time, and at its end", f"{mebibytes(quarter)}, {mebibytes(end)}",
         f"no more than {mebibytes(allowed)} of growth", growth <= allowed),
        ("descriptors before the first client, and after the last", f"{before['descriptors']}, {descriptors}",
         "none is left", descriptors is not None and descriptors <= before["descriptors"]),
        ("torrents, downloads and load that failed", len(complaints) - len(wrong), "none", len(complaints) == len(wrong)),
        ("pieces and blocks with wrong bytes", len(wrong), "none", not wrong and compared > 0),
    ]


def around(samples, part):
    """The median of memory within a tenth of all time around this part of it."""
    whole = samples[-1]["seconds"]
    near = [sample["anonymous"] for sample in samples if abs(sample["seconds"] - part * whole) <= whole / 10]
    return statistics.median(near or [samples[-1]["anonymous"]])


def waited(status):
    figures = status.get("engine", {})
    return {name[len("waited_"):-len("_nanos")]: value / 1e9 for name, value in figures.items()
            if name.startswith("waited_")}


def built(options):
    if options.programs is None:
        print("building the release program", file=sys.stderr)
        subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "seedring"], cwd=rivals.ROOT, check=True)
        folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", rivals.ROOT / "target")) / "release"
    else:
        folder = pathlib.Path(options.programs)
    seedring = folder.resolve() / "seedring"
    if not seedring.exists():
        sys.exit(f"soak: no seedring in {folder}")
    return seedring
