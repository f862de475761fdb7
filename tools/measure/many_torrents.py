"""Thousands of torrents of real small files, for measurements and by hand.

Each torrent is a folder of one to four files of 16 KiB to 1 MiB, so that 10,000 of them have about 2 GiB. Every
tenth has an info dictionary of 20 to 40 KB, as those of large torrents are; what makes it so long is a key that no client
knows. The same seed makes the same torrents. By hand: python3 many_torrents.py FOLDER COUNT [TRACKER-URL]
"""

import hashlib
import pathlib
import random
import sys

KIB = 1024
FILE_MIN, FILE_MAX = 16 * KIB, 1024 * KIB
PIECE_LEN = 64 * KIB


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    items = sorted((key.encode(), item) for key, item in value.items())
    return b"d" + b"".join(bencode(key) + bencode(item) for key, item in items) + b"e"


def lengths(rng):
    """Lengths of a torrent's files: mostly short, rarely a mebibyte."""
    return [
        int(FILE_MIN * (FILE_MAX / FILE_MIN) ** (rng.random() ** 3)) for _ in range(rng.randint(1, 4))
    ]


def make(folder, count, announce=None, seed=1):
    """Makes `count` torrents: FOLDER/torrents/*.torrent, content in FOLDER/data. Answers the info-hashes."""
    rng = random.Random(seed)
    pool = rng.randbytes(4 * FILE_MAX)
    torrents, data = pathlib.Path(folder) / "torrents", pathlib.Path(folder) / "data"
    torrents.mkdir(parents=True, exist_ok=True)
    data.mkdir(parents=True, exist_ok=True)
    hashes = []
    for number in range(count):
        name = f"torrent-{number:05}"
        (data / name).mkdir(exist_ok=True)
        files, whole = [], bytearray()
        for index, length in enumerate(lengths(rng)):
            start = rng.randrange(len(pool) - length)
            content = pool[start : start + length]
            (data / name / f"part-{index}.bin").write_bytes(content)
            files.append({"length": length, "path": [f"part-{index}.bin"]})
            whole += content
        view = memoryview(whole)
        pieces = b"".join(
            hashlib.sha1(view[at : at + PIECE_LEN]).digest() for at in range(0, len(whole), PIECE_LEN)
        )
        info = {"files": files, "name": name, "piece length": PIECE_LEN, "pieces": pieces}
        if number % 10 == 0:
            info["x-filler"] = rng.randbytes(rng.randrange(20_000, 40_000))
        info = bencode(info)
        announced = b"8:announce" + bencode(announce) if announce else b""
        (torrents / f"{name}.torrent").write_bytes(b"d" + announced + b"4:info" + info + b"e")
        hashes.append(hashlib.sha1(info).digest())
    return hashes


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    made = make(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
    print(f"{len(made)} torrents")
