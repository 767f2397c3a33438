"""Small damage to files: bits, bytes and words of binary files, fields and lines of text."""

import gzip
import random
import struct
from collections.abc import Sequence
from pathlib import Path

# Values of one field of a text file that are difficult for a reader.
FIELDS = (
    "", " ", ".", "-", "+", "?", "NaN", "NA", "None", "0", "1", "-1", "1_000", "9" * 30, "1e5", "\u0663", "1.0",
    "0x10", "1,2", "\0", "é", "\udce9", "\ufeff", "\x85", "#", "#x", ">", "##FASTA", "track", "track_2", '"', "'",
    "'a", '"a"', ";", "=", "a=b", "%", "%zz", "%2C", "chr20", "CHR20", "20", "A", "acgt", "U", "AC GT", "N" * 20,
    "<DEL>", "A,C", "0/1", "0|1", "1|1:7", "gene_id", 'x "y"', "Parent=t", "ID=t;Parent=u", "exon", "CDS", "[", "]",
    "{}", "null", "true", "1979-05-27", "\r", "\t", "\n",
)  # fmt: skip


def harmed(chance: random.Random, data: bytes) -> bytes:
    """One or two of: flip a bit, set a byte or a word, cut, delete, repeat, swap two parts."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 2)):
        if not out:
            break
        at, to = chance.randrange(len(out)), chance.randrange(len(out))
        kind = chance.randrange(8)
        if kind == 0:
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            out[at] = chance.choice([0, 1, 10, 13, 32, 62, 65, 97, 127, 255, chance.randrange(256)])
        elif kind == 2:
            value = chance.choice([0, 1, 2, 16, 2**16, 2**31, 2**32 - 1, chance.randrange(64), len(data)])
            out[at // 4 * 4 : at // 4 * 4 + 4] = struct.pack(chance.choice("<>") + "I", value)
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            del out[at : at + chance.randint(1, 8)]
        elif kind == 5:
            out[at:at] = out[to : to + chance.randint(1, 24)]
        elif kind == 6:
            out[at] = (out[at] + chance.choice([-1, 1])) % 256
        else:
            out[at : at + 4], out[to : to + 4] = out[to : to + 4], out[at : at + 4]
    return bytes(out)


def harmed_text(chance: random.Random, text: str, separators: str, words: Sequence[str] = FIELDS) -> bytes:
    """One to three of: another word in a field, lines deleted, repeated or swapped, other line ends, a byte-order mark,
    damaged bytes; sometimes compressed by gzip and then truncated."""
    lines = text.splitlines()
    for _ in range(chance.randint(1, 3)):
        at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
        kind = chance.randrange(6)
        if kind < 3 and lines[at]:
            separator = chance.choice(separators)
            fields = lines[at].split(separator)
            fields[chance.randrange(len(fields))] = chance.choice(words)
            lines[at] = separator.join(fields)
        elif kind == 3 and len(lines) > 1:
            del lines[at]
        elif kind == 4:
            lines.insert(to, lines[at])
        else:
            lines[at], lines[to] = lines[to], lines[at]
        to = min(to, len(lines) - 1)
    end = chance.choice(["\n"] * 6 + ["\r\n", "\r", "\n\n"])
    data = (end.join(lines) + chance.choice([end, ""])).encode("utf-8", "surrogateescape")
    if chance.randrange(8) == 0:
        data = harmed(chance, data)
    if chance.randrange(12) == 0:
        data = b"\xef\xbb\xbf" + data
    if chance.randrange(12) == 0:
        data = gzip.compress(data, 1, mtime=0)
        if chance.randrange(3) == 0:
            data = data[: chance.randrange(len(data))]
    return data


def put(path: Path, data: bytes) -> None:
    """Overwrites a file in place: creating thousands of new files would take longer than reading them."""
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(data)
        file.truncate()
