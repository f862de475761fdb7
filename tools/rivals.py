"""Rival clients and the machine, as the measuring tools here find them.

Where a rival is found, how it is told to download one torrent from peers that a tracker names, and how it says that
it has everything. Discovery beyond the tracker is off in all of them, and every one listens and connects on an
address of its own, on the loopback device of a network namespace: Transmission never connects to 127.0.0.0/8, some know
one peer per address, and nothing can leave the machine. Deliberately absent: their settings as seeders, which
stand in measure/seeders.py.
"""

import ctypes, http.server, json, os, pathlib, platform, shutil, signal, socket, statistics, subprocess, sys, threading
import urllib.error, urllib.parse, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
RQBIT_VERSION = "9.1.0"


def free_port(host="127.0.0.1"):
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def address(number):
    """The address of one participant, from 0; each is in a prefix (/24) of its own."""
    return f"10.45.{number}.1"


def isolate(participants):
    """Moves this process, and what it starts from now on, into a network namespace with addresses for all."""
    new_net, new_user, user, group = 0x40000000, 0x10000000, os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(new_net if user == 0 else new_net | new_user) != 0:
        sys.exit(f"cannot have a network namespace of its own: {os.strerror(ctypes.get_errno())}")
    if user != 0:
        pathlib.Path("/proc/self/setgroups").write_text("deny")
        pathlib.Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        pathlib.Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for number in range(participants):
        subprocess.run(["ip", "addr", "add", f"{address(number)}/32", "dev", "lo"], check=True)


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return (done.stdout + done.stderr).strip().splitlines()[0].strip()
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "unknown"


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_seconds(pid):
    """User and system time of a process with all its threads; None when it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def spread(values, digits):
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def byte_size(text):
    """Bytes of a size as 64MB or 2GiB."""
    number = text.rstrip("KMGiB")
    factors = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    return int(float(number) * factors[text[len(number):]])


def write_random(path, length):
    with open(path, "wb") as out:
        while length > 0:
            out.write(os.urandom(min(length, 1 << 20)))
            length -= 1 << 20


def shown_options(parser, arguments, hidden):
    """The options that differ from their defaults; where things lie on this machine is nobody's business."""
    names = [name for name, value in vars(arguments).items() if name not in hidden and value != parser.get_default(name)]
    return [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]


class Programs:
    """The rivals' programs, and their versions as far as they have been asked for."""

    def __init__(self, folder, rqbit=None, install_rqbit=False, install=True):
        self.folder, self.named_rqbit, self.installs = folder, rqbit, install
        self.install_rqbit = install_rqbit
        #: Name to version, to program, and to the reason why there is none.
        self.versions, self.found, self.left_out = {}, {}, {}
        self.python = None

    def find(self, names):
        """Finds or installs these rivals, while there still is a network; `left_out` names the others."""
        for name in names:
            try:
                program = self.installed(name) if name in SERVERS else RIVALS[name].find(self)
            except (OSError, subprocess.SubprocessError) as error:
                program, self.left_out[name] = None, type(error).__name__
            if program:
                self.found[name] = program
                version = SERVERS[name](program) if name in SERVERS else [program, RIVALS[name].version_option]
                self.versions.setdefault(name, first_line(version))
            else:
                self.left_out.setdefault(name, "not installed")

    def install(self):
        """What comes from the distribution and from PyPI, all of it and once."""
        if self.installs:
            self.installs = False
            # What cannot be had is named as left out; the reason stands on the terminal.
            subprocess.run([ROOT / "tools/install-test-clients", "nginx"], stdout=sys.stderr, timeout=900, check=False)

    def installed(self, program):
        """The program, where it is there or could be installed from the distribution; None without it."""
        # Some folders are in the search path of root alone.
        path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
        if not shutil.which(program, path=path):
            self.install()
        return shutil.which(program, path=path)

    def python_with_libtorrent(self):
        """A Python that can import libtorrent: this one, or the one in the folder of the test clients; None without."""
        probe = "import libtorrent; print(libtorrent.__version__)"
        own = [sys.executable, str(ROOT / "target/test-clients/venv/bin/python")]
        for attempt in ("as it is", "after installing"):
            for python in own:
                if self.python is None and shutil.which(python) and \
                        subprocess.run([python, "-c", probe], capture_output=True).returncode == 0:
                    self.python = python
                    self.versions["libtorrent"] = first_line([python, "-c", probe]) + " (PyPI)"
            if self.python is None and attempt == "as it is":
                self.install()
        return self.python

    def rqbit(self):
        """The rqbit that was named, or the one that lies in the search path or was built here; None without one."""
        built = ROOT / "target/test-clients/rqbit"
        if self.named_rqbit:
            return self.named_rqbit
        found = shutil.which("rqbit") or shutil.which("rqbit", path=built / "bin")
        if not found and self.install_rqbit:
            print(f"building rqbit {RQBIT_VERSION}: this takes some minutes", file=sys.stderr)
            # One crypto library in Rust, so that nothing but cargo is needed.
            subprocess.run(["cargo", "install", "rqbit", "--version", RQBIT_VERSION, "--locked", "--quiet",
                            "--no-default-features", "--features", "rust-tls", "--root", built], check=True)
            found = shutil.which("rqbit", path=built / "bin")
        return found


class Tracker:
    """Tells everybody who asks about everybody else who has asked, and about those that were named to it."""

    def __init__(self, always=()):
        self.always, self.seen, self.lock = list(always), {}, threading.Lock()
        tracker = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = tracker.answer(self.client_address[0], urllib.parse.urlsplit(self.path).query)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((address(0), 0), Handler)
        self.url = f"http://{address(0)}:{self.server.server_address[1]}/announce"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, address, query):
        fields = urllib.parse.parse_qs(query, encoding="latin-1")
        asking = (address, int(fields.get("port", ["0"])[0]))
        torrent = fields.get("info_hash", [""])[0]
        with self.lock:
            peers = self.seen.setdefault(torrent, {})
            if fields.get("event") == ["stopped"]:
                peers.pop(asking, None)
            others = [peer for peer in dict.fromkeys([*self.always, *peers]) if peer != asking]
            if asking[1] and fields.get("event") != ["stopped"]:
                peers[asking] = True
        compact = b"".join(socket.inet_aton(host) + port.to_bytes(2, "big") for host, port in others)
        return b"d8:intervali1800e12:min intervali1800e5:peers%d:%be" % (len(compact), compact)

    def forget(self):
        with self.lock:
            self.seen.clear()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


# Seeds or downloads; prints a line when everything is there and written, and its upload after that.
LIBTORRENT = """
import json, libtorrent as lt, sys
torrent, folder, address, port, role, limit = sys.argv[1:]
settings = dict(listen_interfaces=address + ":" + port, outgoing_interfaces=address, enable_dht=False,
    enable_lsd=False, enable_upnp=False, enable_natpmp=False, enable_incoming_utp=False, enable_outgoing_utp=False,
    allow_multiple_connections_per_ip=True, connections_limit=1000, upload_rate_limit=int(limit),
    alert_mask=lt.alert.category_t.status_notification | lt.alert.category_t.storage_notification)
if role == "seed" and limit == "0":
    settings |= dict(unchoke_slots_limit=-1, max_allowed_in_request_queue=2000, send_buffer_watermark=4 << 20)
session = lt.session(settings)
# Peers of the own network are exempt from limits unless they are put back into the class of all.
everybody = lt.ip_filter()
everybody.add_rule("0.0.0.0", "255.255.255.255", 1)
session.set_peer_class_filter(everybody)
params = lt.add_torrent_params()
params.ti, params.save_path = lt.torrent_info(torrent), folder
if role == "seed":
    params.flags |= lt.torrent_flags.seed_mode
params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
handle = session.add_torrent(params)
if role == "seed":
    print("seeding", flush=True)
complete, uploaded = False, 0
while True:
    session.wait_for_alert(1000)
    if limit != "0" and handle.status().total_payload_upload != uploaded:
        uploaded = handle.status().total_payload_upload
        print("uploaded", uploaded, flush=True)
    for alert in session.pop_alerts():
        if isinstance(alert, (lt.torrent_finished_alert, lt.torrent_checked_alert)) and handle.status().is_seeding:
            handle.flush_cache()
        # Only what is asked for when everything is there tells that everything is written.
        if isinstance(alert, lt.cache_flushed_alert) and not complete:
            complete = True
            print("complete", flush=True)
"""

RTORRENT = """
system.daemon.set = true
network.bind_address.set = {address}
network.port_range.set = {port}-{port}
network.port_random.set = no
dht.mode.set = disable
protocol.pex.set = no
trackers.use_udp.set = no
session.path.set = {state}
directory.default.set = {saved}
{more}
schedule2 = load, 0, 0, "load.start = {torrent}"
"""

QBITTORRENT = """[LegalNotice]
Accepted=true
[BitTorrent]
Session\\DHTEnabled=false
Session\\LSDEnabled=false
Session\\PeXEnabled=false
Session\\BTProtocol=TCP
Session\\Interface=lo
Session\\InterfaceAddress={address}
Session\\Port={port}
Session\\MultiConnectionsPerIp=true
Session\\DefaultSavePath={saved}
[Network]
PortForwardingEnabled=false
[Preferences]
WebUI\\Address=127.0.0.1
WebUI\\AuthSubnetWhitelist=127.0.0.0/8
WebUI\\AuthSubnetWhitelistEnabled=true
WebUI\\HostHeaderValidation=false
WebUI\\UseUPnP=false
Connection\\UPnP=false
Connection\\ResolvePeerCountries=false
"""


class Place:
    """Where one client works: the torrent, folders, its address, an upload limit in bytes a second or None."""

    def __init__(self, torrent, home, saved, address, upload_limit=None):
        self.torrent, self.home, self.saved = torrent, home, saved
        self.address, self.upload_limit = address, upload_limit
        self.log = home / "output.log"

    def run(self, command, prefix=(), env=None):
        """Starts a client in a home folder of its own, without anybody's settings."""
        environment = {**os.environ, "TERM": "dumb", "HOME": str(self.home), **(env or {})}
        with open(self.log, "wb") as log:
            return subprocess.Popen([*map(str, prefix), *map(str, command)], stdin=subprocess.DEVNULL, stdout=log,
                                    stderr=log, env=environment, cwd=self.home)


class Client:
    """A client that downloads (or, with `role="seed"`, seeds what lies there); a subclass says how."""

    #: Whether it ends by itself when it has everything.
    ends = False
    version_option = "--version"
    process = None

    def __init__(self, programs, place):
        self.programs, self.place = programs, place

    def start(self, prefix=()):
        self.process = self.place.run(self.command(), prefix)

    def is_complete(self):
        """Whether it says that it has everything; asked while it runs."""
        return False

    def uploaded(self):
        """Bytes of payload given to others, where it tells."""
        return None


class Libtorrent(Client):
    name = "libtorrent"

    @staticmethod
    def find(programs):
        return programs.python_with_libtorrent()

    def __init__(self, programs, place, role="leech", port=None):
        super().__init__(programs, place)
        self.role, self.port = role, port or free_port(place.address)
        self.python = programs.python_with_libtorrent()

    def command(self):
        place = self.place
        return [self.python, "-c", LIBTORRENT, place.torrent, place.saved, place.address, self.port, self.role,
                place.upload_limit or 0]

    def start(self, prefix=()):
        # Python finds its packages through the home folder.
        self.process = self.place.run(self.command(), prefix, {"HOME": str(pathlib.Path.home())})

    def is_complete(self):
        return "complete" in self.place.log.read_text()

    def is_seeding(self):
        return "seeding" in self.place.log.read_text()

    def uploaded(self):
        told = [line for line in self.place.log.read_text().splitlines() if line.startswith("uploaded")]
        return int(told[-1].split()[1]) if told else 0


class Transmission(Client):
    name = "transmission"

    @staticmethod
    def find(programs):
        return programs.installed("transmission-daemon")

    def __init__(self, programs, place, role="leech"):
        super().__init__(programs, place)
        self.session, self.added = "", False

    def command(self):
        place = self.place
        self.rpc = free_port()
        limit = place.upload_limit
        settings = {
            "bind-address-ipv4": place.address, "bind-address-ipv6": "::1", "peer-port": free_port(place.address),
            "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False, "utp-enabled": False,
            "port-forwarding-enabled": False, "download-dir": str(place.saved), "incomplete-dir-enabled": False,
            "rename-partial-files": False, "rpc-bind-address": "127.0.0.1", "rpc-port": self.rpc,
            "rpc-host-whitelist-enabled": False, "trash-original-torrent-files": False, "ratio-limit-enabled": False,
            "speed-limit-up-enabled": limit is not None, "speed-limit-up": (limit or 0) // 1000,
        }
        (place.home / "settings.json").write_text(json.dumps(settings))
        return ["transmission-daemon", "-f", "-g", place.home]

    def call(self, method, **values):
        body = json.dumps({"method": method, "arguments": values}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.rpc}/transmission/rpc", body,
                                         {"X-Transmission-Session-Id": self.session})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)["arguments"]
        except urllib.error.HTTPError as error:
            self.session = error.headers.get("X-Transmission-Session-Id", "")
        except (OSError, ValueError):
            pass
        return None

    def figures(self):
        if not self.added:
            self.added = self.call("torrent-add", filename=str(self.place.torrent)) is not None
        answer = self.call("torrent-get", fields=["percentDone", "leftUntilDone", "status", "uploadedEver"])
        return answer["torrents"][0] if answer and answer["torrents"] else None

    def is_complete(self):
        figures = self.figures()
        # 6: it seeds. While it checks what it has, nothing may be left although nothing has been looked at.
        return bool(figures) and figures["leftUntilDone"] == 0 and figures["percentDone"] == 1 and figures["status"] == 6

    is_seeding = is_complete

    def uploaded(self):
        figures = self.figures()
        return figures["uploadedEver"] if figures else None


class Aria2(Client):
    name, ends = "aria2", True

    @staticmethod
    def find(programs):
        return programs.installed("aria2c")

    def command(self):
        place = self.place
        return ["aria2c", "--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false",
                "--enable-peer-exchange=false", "--disable-ipv6=true", f"--listen-port={free_port(place.address)}",
                f"--dir={place.saved}", "--seed-time=0", "--file-allocation=none", f"--interface={place.address}",
                "--quiet=true", place.torrent]


class Rtorrent(Client):
    name, version_option = "rtorrent", "-h"

    @staticmethod
    def find(programs):
        return programs.installed("rtorrent")

    def command(self):
        place = self.place
        state, config = place.home / "session", place.home / "rtorrent.rc"
        state.mkdir()
        self.finished = place.home / "finished"
        more = [f"network.local_address.set = {place.address}",
                f'method.set_key = event.download.finished, tell, "execute2 = touch, {self.finished}"']
        config.write_text(RTORRENT.format(address=place.address, port=free_port(place.address), state=state,
                                          saved=place.saved, torrent=place.torrent, more="\n".join(more)))
        return ["rtorrent", "-n", "-o", f"import={config}"]

    def is_complete(self):
        return self.finished.exists()


class Qbittorrent(Client):
    name = "qbittorrent"

    @staticmethod
    def find(programs):
        return programs.installed("qbittorrent-nox")

    def command(self):
        place = self.place
        self.web = free_port()
        settings = place.home / "qBittorrent/config"
        settings.mkdir(parents=True)
        port = free_port(place.address)
        text = QBITTORRENT.format(address=place.address, saved=place.saved, port=port)
        (settings / "qBittorrent.conf").write_text(text)
        return ["qbittorrent-nox", f"--profile={place.home}", f"--webui-port={self.web}",
                f"--save-path={place.saved}", "--add-paused=false", "--skip-dialog=true", place.torrent]

    def is_complete(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web}/api/v2/torrents/info", timeout=5) as answer:
                torrents = json.load(answer)
        except (OSError, ValueError):
            return False
        # "UP" in the state's name: it has everything and the check of it is over.
        states = [one["state"] for one in torrents if one["progress"] == 1]
        return any(state.endswith("UP") and not state.startswith("checking") for state in states)


class Rqbit(Client):
    name, ends = "rqbit", True

    @staticmethod
    def find(programs):
        return programs.rqbit()

    def command(self):
        place = self.place
        return [self.programs.rqbit(), "-v", "warn", "--disable-dht", "--disable-dht-persistence", "--disable-lsd",
                "--disable-upnp-port-forward", "--ipv4-only", "--listen-ip", place.address,
                "download", "--disable-http-api", "--exit-on-finish", "--output-folder", place.saved, place.torrent]


RIVALS = {client.name: client for client in (Libtorrent, Transmission, Aria2, Rtorrent, Qbittorrent, Rqbit)}
#: Servers of other kinds, with the command that tells their version; opentracker itself does not.
SERVERS = {
    "nginx": lambda program: [program, "-v"],
    "opentracker": lambda _: ["dpkg-query", "-W", "-f", "${Version}", "opentracker"],
}
