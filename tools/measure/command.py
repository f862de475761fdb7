"""The command line of tools/versus: finds programs and rivals, gives each row a process, a network namespace and its part
of the time, and hands what they yield to the record.

Each row's process leads a session of its own, so that whatever it leaves behind when it fails is ended with it.
"""

import argparse, ctypes, datetime, json, os, pathlib, resource, select, shutil, signal, subprocess, sys, tempfile, time
import traceback

import rivals
from measure import record, rows
from measure.bench import Bench

ROOT = rivals.ROOT
PARTICIPANTS = 16
#: Seconds beyond its time after which a row that does not come to the end of a run is ended; in a smoke run the other.
PATIENCE, SMOKE_PATIENCE = 240, 30
#: Options that say where things lie on this machine, which is nobody's business.
HIDDEN = ("programs", "work", "memory", "output", "rqbit", "no_install", "readme")


def arguments_of(description, modules):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(modules), help="which, of " + ", ".join(modules))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of each run under load [default: 2]")
    parser.add_argument("--limit", type=float, default=1500,
                        help="seconds of measuring after which no further run starts; rows share them [default: 1500]")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one repetition, no rivals, nothing recorded")
    parser.add_argument("--programs", help="where seedring and floors are [default: they are built, --release]")
    parser.add_argument("--rqbit", metavar="PROGRAM", default=os.environ.get("RQBIT"),
                        help="the rqbit to measure, also as RQBIT [default: found, or built with cargo]")
    parser.add_argument("--no-install", action="store_true", help="install nothing; what is missing is left out")
    parser.add_argument("--seeder-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=min(1, os.cpu_count() - 1))
    parser.add_argument("--work", help="a folder on a disk [default: the one for temporary files]")
    parser.add_argument("--memory", default="/dev/shm", help="a folder in memory")
    parser.add_argument("--output", help="where the record goes [default: benches/record]")
    parser.add_argument("--readme", action="store_true", help="put the newest record's summary into README.md, and end")
    for module in modules.values():
        if hasattr(module, "add_arguments"):
            module.add_arguments(parser)
    options = parser.parse_args()
    if options.smoke:
        options.repetitions, options.seconds, options.no_install = 1, min(options.seconds, 0.2), True
    return parser, options


def main(description):
    modules = {name: rows.load(name) for name in rows.names()}
    parser, options = arguments_of(description, modules)
    output = pathlib.Path(options.output or ROOT / "benches/record")
    if options.readme:
        return record.update_readme(ROOT / "README.md", output)
    chosen = [name for name in options.rows.split(",") if name]
    unknown = [name for name in chosen if name not in modules]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(modules)}")
    # An ended run ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise_descriptor_limit()
    load_average = os.getloadavg()[0]
    seedring, floors = built(options)
    with tempfile.TemporaryDirectory(prefix="versus-") as tools:
        programs = find_rivals(options, [modules[name] for name in chosen], pathlib.Path(tools))
        head = {
            "date": datetime.date.today().isoformat(), **record.machine(), "load_average": load_average,
            "command": " ".join(["tools/versus", *rivals.shown_options(parser, options, HIDDEN)]),
            "repetitions": options.repetitions, "seconds": options.seconds,
            "seeder_core": options.seeder_core, "load_core": options.load_core,
            "versions": {"seedring": rivals.first_line([seedring, "--version"]), **programs.versions},
            "left_out": dict(programs.left_out), "rows": [],
        }
        whole = record.Record(head, modules, None if options.smoke else output, chosen)
        measure_all(chosen, modules, options, (seedring, floors, programs), whole)
    if options.smoke:
        # A row may need what this machine does not have; one that says nothing at all is broken.
        told = lambda row: f"{len(row['runs'])} runs" if row["runs"] or not row["left_out"] else "left out"
        print("smoke run: " + ", ".join(f"{row['name']} {told(row)}" for row in head["rows"]))
    else:
        print(whole.path)
    return 1 if any(row["failed"] for row in head["rows"]) else 0


def measure_all(chosen, modules, options, programs, whole):
    ends = time.monotonic() + options.limit
    share = lambda name: getattr(modules[name], "SHARE", 1)
    for number, name in enumerate(chosen):
        # What a row does not need is left to those that follow.
        now, waiting = time.monotonic(), sum(map(share, chosen[number:]))
        if now >= ends:
            whole.head["left_out"][name] = "no time was left"
            continue
        deadline = now + (ends - now) * share(name) / waiting
        row = {"name": name, "runs": [], "left_out": [], "failed": None}
        whole.head["rows"].append(row)
        folders = [pathlib.Path(tempfile.mkdtemp(prefix=f"versus-{name}-", dir=where))
                   for where in (options.work, options.memory)]
        try:
            run_row(row, modules[name], options, programs, folders, deadline, whole)
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
        row["seconds"] = round(time.monotonic() - now, 1)
        # A run that ends early has lost nothing of what was measured.
        whole.write()


def run_row(row, module, options, programs, folders, deadline, whole):
    """Measures one row in a process of its own, and takes in what it tells."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            code = in_namespace(row["name"], module, options, programs, folders, deadline, os.fdopen(writing, "w"))
        finally:
            os._exit(code)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb", buffering=0) as told:
            take_in(told, row, deadline, SMOKE_PATIENCE if options.smoke else PATIENCE, whole)
    finally:
        code = end_session(child)
    if code != 0 and not row["failed"]:
        row["failed"] = f"ended with {code}"
    if row["failed"]:
        print(f"{row['name']}: FAILED: {row['failed']}", file=sys.stderr)


def take_in(told, row, deadline, patience, whole):
    rest, until = b"", deadline + patience
    while True:
        ready, _, _ = select.select([told], [], [], max(0, until - time.monotonic()))
        if not ready:
            row["failed"] = f"not over {patience} s after its time"
            return
        more = told.read(1 << 16)
        if not more:
            return
        *lines, rest = (rest + more).split(b"\n")
        for message in map(json.loads, lines):
            if "run" in message:
                row["runs"].append(message["run"])
            elif "failed" in message:
                row["failed"] = message["failed"]
            elif "version" in message:
                whole.head["versions"].update([message["version"]])
            elif "left_out" in message:
                whole.head["left_out"].update([message["left_out"]])
                row["left_out"].append(message["left_out"][0])


def end_session(leader):
    """Ends a row's process, and what may be left of its session; returns its exit status."""
    code = None
    # While the row has ended by itself this waits for nothing.
    for patience, number in ((2, signal.SIGTERM), (30, signal.SIGKILL), (5, None)):
        code = waited(leader, patience)
        if code is not None or number is None:
            break
        try:
            os.kill(leader, number)
        except ProcessLookupError:
            pass
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    return code if code is not None else 1


def waited(pid, seconds):
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.01)


def in_namespace(name, module, options, programs, folders, deadline, out):
    """What a row's process does."""
    os.setsid()
    # When the one who asked is gone, nobody wants the answer. 1: PR_SET_PDEATHSIG.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    rivals.isolate(PARTICIPANTS)

    def tell(message):
        out.write(json.dumps(message) + "\n")
        out.flush()

    bench = Bench(name, getattr(module, "RIVALS", ()), options, programs, folders, tell)
    bench.deadline = deadline
    runs = module.measure(bench)
    try:
        for run in runs:
            tell({"run": run})
            if not bench.time_is_left():
                bench.say("its time is over")
                break
        return 0
    except SystemExit as ended:
        tell({"failed": f"ended: {ended}"})
        return 1
    except BaseException as error:
        traceback.print_exc()
        tell({"failed": f"{type(error).__name__}: {error}"})
        return 1
    finally:
        runs.close()
        bench.close()


def raise_descriptor_limit():
    """Rows hold thousands of connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def built(options):
    """The programs to measure; built unless it was said where they are."""
    folder = options.programs
    if folder is None:
        print("building the release programs", file=sys.stderr)
        subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "seedring", "-p", "floors"], cwd=ROOT, check=True)
        folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    folder = pathlib.Path(folder).resolve()
    seedring, floors = folder / "seedring", folder / "floors"
    if not seedring.exists():
        sys.exit(f"versus: no seedring in {folder}")
    if not floors.exists():
        if not options.smoke:
            sys.exit(f"versus: no floors in {folder}; build them: cargo build --release -p seedring -p floors")
        floors = None
    return seedring, floors


def find_rivals(options, modules, folder):
    installs = not options.no_install
    programs = rivals.Programs(folder, options.rqbit, install_rqbit=installs, install=installs)
    if not options.smoke:
        wanted = dict.fromkeys(name for module in modules for name in getattr(module, "RIVALS", ()))
        programs.find(list(wanted))
    return programs
