"""What a row is given to measure with: programs, folders, cores, rivals, sizes.

Everything that a row starts through `start` is ended with the row, by process id. Deliberately absent: what is
measured, which is each row's own.
"""

import os, pathlib, subprocess, sys, time

import rivals


class Bench:
    """One row's view of the run; it lives in the row's own process."""

    def __init__(self, row, wanted, options, programs, folders, tell):
        #: The row's name.
        self.row = row
        #: The whole command line, options of the rows among it.
        self.options = options
        #: The programs to measure. `floors` is None in a smoke run that has none.
        #: `programs`: rivals.Programs, as the clients of rivals.py want it.
        self.seedring, self.floors, self.programs = programs
        #: Name to program of the rivals that the row names and that were found; empty in a smoke run.
        found = self.programs.found
        self.rivals = {name: found[name] for name in wanted if name in found}
        self.repetitions, self.seconds, self.smoke = options.repetitions, options.seconds, options.smoke
        #: Empty folders on a disk and in memory, removed afterwards.
        self.work, self.memory = folders
        #: The seeder's core and the load's core.
        self.cores = (options.seeder_core, options.load_core)
        #: When, by time.monotonic(), no further run starts.
        self.deadline = None
        self._tell, self._started = tell, []

    def say(self, text):
        """A line for who is watching."""
        print(f"{self.row}: {text}", file=sys.stderr, flush=True)

    def leave_out(self, subject, reason):
        """Names in the record what could not be measured, and why."""
        self.say(f"{subject} left out: {reason}")
        self._tell({"left_out": [subject, reason]})

    def version(self, subject, text):
        """Names in the record what was measured."""
        self._tell({"version": [subject, text]})

    def time_is_left(self):
        """Whether a further run may start; the loop over `measure` asks, too."""
        return self.deadline is None or time.monotonic() < self.deadline

    def size(self, full, smoke):
        """`full`, or `smoke` in a smoke run."""
        return smoke if self.smoke else full

    def content(self, path, length):
        """Random content in a file that is then in the page cache and, on a disk, written back."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rivals.write_random(path, length)
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        return path

    def torrent(self, content, torrent, *options, piece_length="256KiB"):
        """Makes a torrent of content."""
        command = [self.seedring, "create", content, "-o", torrent, "--piece-length", piece_length, *options]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return torrent

    def start(self, command, log, core=None, env=None, **more):
        """Starts a process, on one core where one is named, with its output in `log`; `stop` or the row's end ends it."""
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        environment = {**os.environ, "TERM": "dumb", **(env or {})}
        with open(log, "wb") as out:
            process = subprocess.Popen([*pinned, *map(str, command)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       env=environment, **more)
        self._started.append(process)
        return process

    def stop(self, process):
        """Ends a process that `start` has started, and waits for it."""
        rivals.stop(process)
        if process in self._started:
            self._started.remove(process)

    def close(self):
        for process in list(self._started):
            self.stop(process)


def evict(path):
    """Puts a file that nobody has mapped out of memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def resident(pid):
    """Bytes of memory of a process by kind, as {"RssAnon": ..., "RssFile": ..., "VmHWM": ...}; empty when it is gone."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    kinds = ("RssAnon", "RssFile", "RssShmem", "VmRSS", "VmHWM")
    fields = (line.partition(":") for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, _, value in fields if name in kinds}
