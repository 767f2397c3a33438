"""A simple second reader of .2bit, written after UCSC's description of the format."""

import struct


def contigs_of(data: bytes) -> dict[str, str]:
    """name -> soft-masked sequence. Raises struct.error, IndexError, ValueError for a broken file."""
    order = {b"\x43\x27\x41\x1a": "<", b"\x1a\x41\x27\x43": ">"}[data[:4]]

    def word(at: int) -> int:
        return struct.unpack_from(f"{order}I", data, at)[0]

    version, count = word(4), word(8)
    at = 16
    found: dict[str, str] = {}
    for _ in range(count):
        name = data[at + 1 : at + 1 + data[at]].decode()
        at += 1 + data[at]
        record = struct.unpack_from(f"{order}{'Q' if version else 'I'}", data, at)[0]
        at += 8 if version else 4
        if name in found:
            raise ValueError(name)
        found[name] = sequence_of(data, record, word)
    return found


def sequence_of(data, record, word):
    size = word(record)
    blocks = []
    at = record + 4
    for _ in range(2):
        count = word(at)
        blocks.append([(word(at + 4 + 4 * i), word(at + 4 + 4 * (count + i))) for i in range(count)])
        at += 4 + 8 * count
    at += 4
    letters = ["TCAG"[data[at + i // 4] >> 6 - 2 * (i % 4) & 3] for i in range(size)]
    for kind, runs in enumerate(blocks):
        for start, length in runs:
            for i in range(start, start + length):
                letters[i] = letters[i].lower() if kind else "N"
    return "".join(letters)
