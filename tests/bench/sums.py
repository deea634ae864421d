"""CPU seconds per GiB of what could sum a piece: `python tests/bench/sums.py`. The best of five, one thread.

blake3 is measured when it is installed (`pip install blake3`); OpenSSL without the SHA instructions of a processor:
`OPENSSL_ia32cap=:~0x20000000 python tests/bench/sums.py`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable

from isal.isal_zlib import crc32

GIB = 1 << 30
PIECE = os.urandom(4 << 20)
PASSES = 64  # over the piece


def cpu_s_per_gib(sum_piece: Callable[[bytes], object]) -> float:
    """What the sum of a GiB in pieces of 4 MiB costs."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(PASSES):
            sum_piece(PIECE)
        best = min(best, time.process_time() - began)
    return best * GIB / (PASSES * len(PIECE))


def main() -> None:
    """Measure and print."""
    sums: dict[str, Callable[[bytes], object]] = {
        "crc32 (isal)": crc32,
        "sha256 (OpenSSL)": lambda data: hashlib.sha256(data).digest(),
        "sha1 (OpenSSL)": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
        "blake2b (hashlib)": lambda data: hashlib.blake2b(data).digest(),
    }
    try:
        import blake3
    except ImportError:
        print("blake3 is not installed")
    else:
        sums["blake3"] = lambda data: blake3.blake3(data).digest()
    for name, call in sums.items():
        print(f"{name:<20}{cpu_s_per_gib(call):6.2f} CPU s per GiB")


if __name__ == "__main__":
    main()
