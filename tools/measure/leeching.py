"""Downloaders under measurement: what one costs from its start until it says that it has everything."""

import os, pathlib, threading, time

from rivals import Client, cpu_seconds, stop


class Seedring(Client):
    """Our own downloader, told of its one peer."""

    name, ends = "seedring", True

    def __init__(self, program, place, peer):
        super().__init__(None, place)
        self.program, self.peer = program, peer

    def command(self):
        place = self.place
        return [self.program, "get", place.torrent, "--output", place.saved, "--peer", self.peer, "--bind", place.address,
                "--port", "0", "--workers", "1", "--no-pin", "--json", "--state-dir", place.home / "state"]


class Watch:
    """The largest memory of a process, looked at again and again until it has gone."""

    def __init__(self, pid):
        self.peak = {"VmHWM": 0, "RssAnon": 0}
        self.pid, self.over = pid, threading.Event()
        self.thread = threading.Thread(target=self.follow)
        self.thread.start()

    def follow(self):
        while not self.over.wait(0.02):
            self.look()

    def look(self):
        try:
            text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name in self.peak:
                self.peak[name] = max(self.peak[name], int(value.split()[0]))

    def end(self):
        self.over.set()
        self.thread.join()
        return {"peak_mib": self.peak["VmHWM"] / 1024, "anonymous_mib": self.peak["RssAnon"] / 1024}


def cost(client, core, patience):
    """Starts a client and ends it when it has everything: CPU seconds, seconds and memory.

    Raises RuntimeError when it ends before or does not get there.
    """
    started = time.monotonic()
    client.start(["taskset", "-c", str(core)])
    watch = Watch(client.process.pid)
    try:
        cpu = follow(client, started + patience)
        seconds = time.monotonic() - started
    finally:
        memory = watch.end()
        if client.process.returncode is None:
            stop(client.process)
    return {"cpu_seconds": cpu, "seconds": seconds, **memory}


def follow(client, deadline):
    """CPU seconds until it has everything."""
    process = client.process
    while time.monotonic() < deadline:
        if client.ends:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                if process.returncode != 0:
                    raise RuntimeError(f"ended with {process.returncode}: {last_words(client)}")
                return usage.ru_utime + usage.ru_stime
        elif process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}: {last_words(client)}")
        elif client.is_complete():
            return cpu_seconds(process.pid)
        # To ask a client costs it something.
        time.sleep(0.01 if client.ends else 0.1)
    raise RuntimeError("incomplete when its time was over")


def last_words(client):
    lines = client.place.log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
