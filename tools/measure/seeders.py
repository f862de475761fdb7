"""The seeders that are compared, each serving one content to many connections, and the load that asks them.

Every seeder runs with its own defaults, without limits on peers and slots, discovery off. The floors serve the same bytes
with bare loops; nginx serves the same file over HTTP. Deliberately absent: rivals as downloaders, which stand in
rivals.py.
"""

import json, shutil, subprocess, time

import rivals
from rivals import cpu_seconds
from measure.bench import resident

HOST = "127.0.0.1"
FLOORS = ("floor-writev", "floor-sendfile")

LIBTORRENT = """
import libtorrent, sys, time
settings = dict(listen_interfaces="127.0.0.1:" + sys.argv[3], enable_dht=False, enable_lsd=False,
    enable_upnp=False, enable_natpmp=False, enable_incoming_utp=False, enable_outgoing_utp=False,
    allow_multiple_connections_per_ip=True, connections_limit=10000, unchoke_slots_limit=-1,
    max_allowed_in_request_queue=2000, listen_queue_size=200, alert_mask=0)
session = libtorrent.session(settings)
params = libtorrent.add_torrent_params()
params.ti, params.save_path = libtorrent.torrent_info(sys.argv[1]), sys.argv[2]
params.flags |= libtorrent.torrent_flags.seed_mode
params.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
session.add_torrent(params)
while True:
    time.sleep(60)
"""

#: As many peers at once as others serve.
RTORRENT_SEED = """throttle.max_uploads.set = 1000
throttle.max_uploads.global.set = 1000
throttle.max_peers.normal.set = 1000
throttle.max_peers.seed.set = 1000"""

# One process, since one core serves; as many requests on a connection as are asked.
NGINX = """
daemon off;
master_process off;
pid {state}/nginx.pid;
error_log {state}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path {state}; proxy_temp_path {state}; fastcgi_temp_path {state};
    uwsgi_temp_path {state}; scgi_temp_path {state};
    server {{ listen 127.0.0.1:{port} backlog=4096; root {data}; }}
}}
"""


class Content:
    """One file of random data in the page cache, alone in a folder, and its torrent."""

    def __init__(self, bench, folder, length):
        self.folder, self.data, self.length = folder, folder / "data", length
        self.file = bench.content(self.data / "content.bin", length)
        self.torrent = bench.torrent(self.file, folder / "content.torrent")
        # rTorrent refuses a torrent without trackers; nothing listens at this one, on loopback.
        tracker = ["--tracker", "http://127.0.0.1:9/announce"]
        self.announced = bench.torrent(self.file, folder / "announced.torrent", *tracker)


def started(bench, content, floors, wanted=None):
    """Seedring, these floors and the row's rivals, or those of them that `wanted` names (with commas): all that serve."""
    names = ["seedring", *(floors if bench.floors else ()), *bench.rivals]
    if wanted:
        names = [name for name in names if name in wanted.split(",")]
    return [seeder for seeder in (Seeder(bench, name, content) for name in names) if seeder.start()]


class Seeder:
    """A seeder that runs, on the core that seeds."""

    def __init__(self, bench, name, content):
        self.bench, self.name, self.content, self.process = bench, name, content, None

    def command(self, state):
        bench, content, port = self.bench, self.content, str(self.port)
        if self.name == "seedring":
            return [bench.seedring, "seed", content.torrent, "--data", content.data, "--bind", HOST, "--port", port,
                    "--tracker-port", "0", "--workers", "1", "--no-pin", "--json", "--state-dir", state]
        if self.name.startswith("floor-"):
            return [bench.floors, self.name.removeprefix("floor-"), content.torrent, content.file, "--listen",
                    f"{HOST}:{port}", "--stay"]
        return getattr(self, self.name)(bench.rivals[self.name], content, state, port)

    def libtorrent(self, python, content, state, port):
        return [python, "-c", LIBTORRENT, content.torrent, content.data, port]

    def transmission(self, program, content, state, port):
        watch = state / "watch"
        watch.mkdir()
        shutil.copy(content.torrent, watch)
        settings = {
            "bind-address-ipv4": HOST, "bind-address-ipv6": "::1", "peer-port": int(port),
            "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False, "utp-enabled": False,
            "port-forwarding-enabled": False, "download-dir": str(content.data), "encryption": 0,
            "peer-limit-global": 1000, "peer-limit-per-torrent": 1000, "upload-slots-per-torrent": 1000,
            "watch-dir": str(watch), "watch-dir-enabled": True, "ratio-limit-enabled": False,
            "rpc-bind-address": HOST, "rpc-port": rivals.free_port(), "trash-original-torrent-files": False,
        }
        (state / "settings.json").write_text(json.dumps(settings))
        return [program, "-f", "-g", state]

    def aria2(self, program, content, state, port):
        return [program, "--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false",
                "--enable-peer-exchange=false", "--disable-ipv6=true", f"--listen-port={port}",
                f"--dir={content.data}", "--check-integrity=true", "--seed-ratio=0.0", "--bt-max-peers=0",
                f"--interface={HOST}", "--allow-overwrite=true", "--quiet=true", content.torrent]

    def rqbit(self, program, content, state, port):
        # It finds everything there when it checks, and seeds from then on. It sets the length of files that it
        # opens, which touches them, and a seeder of the same files then takes them for modified.
        own = state / "data"
        shutil.copytree(content.data, own)
        return [program, "-v", "warn", "--disable-dht", "--disable-dht-persistence", "--disable-lsd",
                "--disable-upnp-port-forward", "--disable-trackers", "--ipv4-only", "--listen-ip", HOST,
                "--listen-port", port, "--peer-limit", "1000",
                "download", "--disable-http-api", "--overwrite", "--output-folder", own, content.torrent]

    def rtorrent(self, program, content, state, port):
        config, session = state / "rtorrent.rc", state / "session"
        session.mkdir()
        config.write_text(rivals.RTORRENT.format(address=HOST, port=port, state=session, saved=content.data,
                                                 torrent=content.announced, more=RTORRENT_SEED))
        return [program, "-n", "-o", f"import={config}"]

    def qbittorrent(self, program, content, state, port):
        settings = state / "qBittorrent/config"
        settings.mkdir(parents=True)
        text = rivals.QBITTORRENT.format(address=HOST, saved=content.data, port=port)
        (settings / "qBittorrent.conf").write_text(text)
        return [program, f"--profile={state}", f"--webui-port={rivals.free_port()}", f"--save-path={content.data}",
                "--skip-hash-check", "--add-paused=false", "--skip-dialog=true", content.torrent]

    def nginx(self, program, content, state, port):
        config = state / "nginx.conf"
        config.write_text(NGINX.format(port=port, state=state, data=content.data))
        return [program, "-p", state, "-c", config]

    def start(self, patience=90):
        """Whether it serves; otherwise the record says why not."""
        state = self.bench.work / f"seeder-{self.name}"
        state.mkdir()
        self.port = rivals.free_port()
        # Nobody's own settings take part; Python finds its packages through the home folder.
        home = {} if self.name == "libtorrent" else {"HOME": str(state)}
        try:
            self.process = self.bench.start(self.command(state), state / "output.log", self.bench.cores[0], home, cwd=state)
        except OSError as error:
            self.bench.leave_out(self.name, str(error))
            return False
        until = time.monotonic() + patience
        while time.monotonic() < until and self.process.poll() is None:
            # A first small run also says that the seeder has checked its data and unchokes.
            if self.load(1, 40, ["--bytes", f"{min(16 << 20, self.content.length)}B"], 40) is not None:
                # Its mappings are filled before anything is measured.
                warm = self.bench.size(2000, 100)
                self.load(10, 40, ["--duration", f"{warm}ms"], 40)
                return True
            time.sleep(0.2)
        ended = self.process.poll()
        self.bench.leave_out(self.name, "does not serve" if ended is None else f"ended with {ended}")
        self.bench.stop(self.process)
        return False

    def load(self, connections, depth, until, limit, *more):
        """What `seedring bench` reports, `until` its --bytes or --duration; None when it failed."""
        if self.name == "nginx":
            return self.load_http(connections, depth, until, limit)
        command = [self.bench.seedring, "bench", f"{HOST}:{self.port}", self.content.torrent, "--connections", connections,
                   "--depth", depth, "--pin", self.bench.cores[1], "--json",
                   # Some clients take one connection from an address.
                   "--source-addresses", min(connections, 250), *until, *more]
        return report_of(command, limit)

    def load_http(self, connections, depth, until, limit):
        """The same over HTTP, with as many bytes in flight, in ranges of 256 KiB."""
        seconds = float(until[1].removesuffix("ms")) / 1000 if until[0] == "--duration" else 0.1
        in_flight = max(1, round(depth * 16 / 256))
        command = [self.bench.floors, "http", f"{HOST}:{self.port}", "/content.bin", "--bytes", self.content.length,
                   "--range", "256KiB", "--connections", connections, "--depth", in_flight, "--seconds", seconds,
                   "--pin", self.bench.cores[1]]
        return report_of(command, limit)

    def measure(self, connections, depth, *more, seconds=None):
        """One run under load; None when it came to nothing, or there was nothing to count."""
        before = cpu_seconds(self.process.pid)
        seconds = seconds or self.bench.seconds
        report = self.load(connections, depth, ["--duration", f"{round(seconds * 1000)}ms"], seconds * 4 + 30, *more)
        after = cpu_seconds(self.process.pid)
        if report is None or not report["bytes"] or before is None or after is None:
            self.bench.say(f"{self.name} at {connections} connections: failed")
            return None
        cpu = after - before
        # The kernel counts in ticks; a seeder that did next to nothing has no figure.
        counted = {"cpu_seconds_per_gib": cpu / (report["bytes"] / 2**30)} if cpu >= 5 / rivals.TICKS else {}
        return {
            "subject": self.name,
            "connections": connections,
            "depth": depth,
            **counted,
            "gib_per_second": report["bytes_per_second"] / 2**30,
            "p50_ms": report["latency"]["p50_us"] / 1e3,
            "p99_ms": report["latency"]["p99_us"] / 1e3,
            "p999_ms": report["latency"]["p999_us"] / 1e3,
            "jain": report["per_connection"]["jain"],
            "served": report["reached"]["served"],
            "load_cpu_seconds_per_gib": report["own_cpu_seconds_per_gib"],
            "anonymous_mib": resident(self.process.pid).get("RssAnon", 0) / 2**20,
        }

    def stop(self):
        if self.process is not None:
            self.bench.stop(self.process)


def report_of(command, limit):
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=limit)
        return json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        return None
