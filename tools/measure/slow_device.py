"""A file system of one file whose reads take as long as one likes: `python3 slow_device.py CONTENT FOLDER MILLISECONDS`.

It speaks the kernel's FUSE protocol (include/uapi/linux/fuse.h, version 7.31) and mounts itself on FOLDER, where `slow.bin`
has CONTENT's bytes. Until SIGUSR1 it answers at once; from then on each read is answered so many milliseconds after it was
asked, however many are asked at a time, as by a disk far away. Deliberately absent: writing, folders, everything else.
"""

import ctypes, errno, heapq, os, select, signal, stat, struct, sys, time

NAME, ROOT, FILE = b"slow.bin", 1, 2
LOOKUP, FORGET, GETATTR, STATFS, OPEN, READ, RELEASE, FLUSH, INIT, OPENDIR, READDIR = 1, 2, 3, 17, 14, 15, 18, 25, 26, 27, 28
RELEASEDIR, ACCESS, INTERRUPT, BATCH_FORGET = 29, 34, 36, 42
HEADER = struct.Struct("<IIQQIIIHH")
NO_SUID, NO_DEV = 2, 4
ASYNC_READ, MAX_PAGES, KEEP_CACHE = 1, 1 << 22, 2
FOREVER = 1 << 30


class SlowDevice:
    def __init__(self, content, folder, delay):
        self.content = os.open(content, os.O_RDONLY)
        self.state, self.delay, self.is_slow = os.fstat(self.content), delay, False
        self.device = os.open("/dev/fuse", os.O_RDWR)
        #: Reads that wait: when they are due, their number, offset and length.
        self.waiting = []
        options = f"fd={self.device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},default_permissions"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"slow", os.fsencode(folder), b"fuse", NO_SUID | NO_DEV, options.encode()) != 0:
            sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")

    def serve(self):
        while True:
            now = time.monotonic()
            while self.waiting and self.waiting[0][0] <= now:
                _, unique, offset, length = heapq.heappop(self.waiting)
                self.answer(unique, os.pread(self.content, length, offset))
            patience = max(0, self.waiting[0][0] - now) if self.waiting else None
            if select.select([self.device], [], [], patience)[0]:
                try:
                    request = os.read(self.device, 1 << 20)
                except InterruptedError:
                    continue
                except OSError as error:
                    if error.errno == errno.ENODEV:
                        return
                    if error.errno in (errno.ENOENT, errno.EAGAIN):
                        continue
                    raise
                self.handle(*HEADER.unpack_from(request)[1:4], request[HEADER.size:])

    def handle(self, opcode, unique, node, body):
        if opcode == INIT:
            readahead, = struct.unpack_from("<I", body, 8)
            self.answer(unique, struct.pack("<IIIIHHIIHHI28x", 7, 31, readahead, ASYNC_READ | MAX_PAGES, 1024, 768, 4096, 1,
                                            64, 0, 0))
        elif opcode == LOOKUP:
            if body.rstrip(b"\0") == NAME:
                self.answer(unique, struct.pack("<QQQQII", FILE, 0, FOREVER, FOREVER, 0, 0) + self.attributes(FILE))
            else:
                self.refuse(unique, errno.ENOENT)
        elif opcode == GETATTR:
            self.answer(unique, struct.pack("<QII", FOREVER, 0, 0) + self.attributes(node))
        elif opcode in (OPEN, OPENDIR):
            self.answer(unique, struct.pack("<QII", node, KEEP_CACHE, 0))
        elif opcode == READ:
            _, offset, length = struct.unpack_from("<QQI", body)
            due = time.monotonic() + (self.delay if self.is_slow else 0)
            heapq.heappush(self.waiting, (due, unique, offset, length))
        elif opcode in (RELEASE, RELEASEDIR, FLUSH, ACCESS, READDIR):
            self.answer(unique, b"")
        elif opcode == STATFS:
            self.answer(unique, struct.pack("<QQQQQIII24x", 0, 0, 0, 0, 0, 4096, 255, 4096))
        elif opcode not in (FORGET, BATCH_FORGET, INTERRUPT):
            self.refuse(unique, errno.ENOSYS)

    def attributes(self, node):
        mode, size = (stat.S_IFDIR | 0o755, 0) if node == ROOT else (stat.S_IFREG | 0o644, self.state.st_size)
        seconds = int(self.state.st_mtime)
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, seconds, seconds, seconds, 0, 0, 0, mode, 1,
                           os.getuid(), os.getgid(), 0, 4096, 0)

    def answer(self, unique, body):
        self.say(struct.pack("<IiQ", 16 + len(body), 0, unique) + body)

    def refuse(self, unique, number):
        self.say(struct.pack("<IiQ", 16, -number, unique))

    def say(self, message):
        try:
            os.write(self.device, message)
        except OSError as error:
            # Whoever asked has gone.
            if error.errno != errno.ENOENT:
                raise

    def slow_down(self, *_):
        self.is_slow = True


def main():
    device = SlowDevice(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000)
    signal.signal(signal.SIGUSR1, device.slow_down)
    print("mounted", flush=True)
    device.serve()


if __name__ == "__main__":
    main()
