"""The seeder under test: how it is started, what it tells, what /proc says of it, how it ends."""

import json, os, pathlib, subprocess, threading, time

import rivals

#: Name of each torrent, and its part of all content in eighths: for verifying load, for clients that leave, for downloads.
TORRENTS = {"busy": 5, "churned": 2, "fetched": 1}
PIECE_LEN = 256 * 1024


class Torrent:
    """A file, its .torrent, and its bytes to compare with."""

    def __init__(self, name, path, file):
        self.name, self.path, self.file, self.info_hash = name, path, file, None
        self.length = path.stat().st_size


class Seeder:
    def __init__(self, seedring, folder, length, core):
        self.torrents, self.problems, self.last = {}, [], {}
        self.log = folder / "seeder.log"
        data, torrents = folder / "data", folder / "torrents"
        data.mkdir()
        self.data = str(data.resolve())
        torrents.mkdir()
        for name, eighths in TORRENTS.items():
            path, file = data / name, torrents / f"{name}.torrent"
            rivals.write_random(path, length * eighths // 8)
            subprocess.run([seedring, "create", path, "-o", file, "--piece-length", "256KiB"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.torrents[name] = Torrent(name, path, file)
        command = [
            "taskset", "-c", str(core), seedring, "seed", "--torrents", torrents, "--data", data, "--bind", "127.0.0.1",
            "--port", "0", "--tracker-port", "0", "--workers", "1", "--no-pin", "--upload-slots", "4000", "--json",
            "--state-dir", folder / "state"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            stderr=log, text=True)
        self.pid, self.address, self.told = self.process.pid, None, threading.Event()
        threading.Thread(target=self.follow, daemon=True).start()
        if not self.told.wait(120):
            raise SystemExit(f"soak: the seeder serves nothing: {self.log.read_text()[-500:]}")

    def follow(self):
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "started":
                host, _, port = event["peer_addresses"][0].rpartition(":")
                self.address = (host, int(port))
                self.torrents[event["name"]].info_hash = bytes.fromhex(event["info_hash"])
            elif event["event"] == "status":
                self.last = event
                if all(torrent.info_hash for torrent in self.torrents.values()):
                    self.told.set()
            elif event["event"] in ("failed", "warning", "storage_refused", "banned"):
                self.problems.append(line.strip())

    @property
    def endpoint(self):
        return "%s:%d" % self.address

    def sample(self):
        """Memory in bytes, descriptors, connections, bytes served and CPU seconds, now."""
        fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return {
            "anonymous": int(fields["RssAnon"].split()[0]) * 1024,
            "descriptors": self.descriptors(),
            "connections": self.last.get("engine", {}).get("connections", 0),
            "served": self.last.get("served", 0),
            "cpu_seconds": rivals.cpu_seconds(self.pid),
        }

    def descriptors(self):
        """Open descriptors, without content, which stays open for a minute after the last request."""
        count = 0
        for number in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{self.pid}/fd/{number}")
            except OSError:
                continue
            count += not target.startswith(self.data)
        return count

    def wait_for_descriptors(self, count, seconds):
        """Waits until no more than so many descriptors are open; how many are."""
        until = time.monotonic() + seconds
        while self.descriptors() > count and time.monotonic() < until:
            time.sleep(0.2)
        return self.descriptors()

    def stop(self):
        """Ends it; its exit status."""
        rivals.stop(self.process)
        return self.process.returncode
