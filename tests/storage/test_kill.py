"""kill -9 at any instant loses nothing that was acknowledged and leaves nothing that was not verified."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_twisted

from krakentx.core.digest import Digest
from krakentx.core.metainfo import SumBuilder

pytestmark = pytest.mark.integration

KILLS = 8
PROGRAM = Path(__file__).parent / "killed.py"


@pytest.fixture(scope="module")
def killed() -> ModuleType:
    spec = importlib.util.spec_from_file_location("killed", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run_and_kill(root: Path, first: int, delay_s: float) -> list[list[str]]:
    """What the process said before it was killed."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen([sys.executable, PROGRAM, root, str(first)], stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    with child:
        line = child.stdout.readline()
        assert line == b"begin\n"
        time.sleep(delay_s)
        child.kill()
        said = child.stdout.read()
    assert child.returncode == -9
    return [line.split() for line in said.decode().splitlines(keepends=True) if line.endswith("\n")]


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file())


@pytest_twisted.ensureDeferred
async def test_killed_at_seeded_instants(tmp_path: Path, pool: Any, killed: ModuleType) -> None:
    rng = random.Random(3)
    acknowledged = 0
    for kill in range(KILLS):
        first = kill * 10_000
        said = _run_and_kill(tmp_path, first, rng.uniform(0.01, 0.25))
        cache, partials, uploads = killed.stores(tmp_path, pool)

        finished = {int(words[1]) for words in said if words[0] == "finished"}
        downloaded = {int(words[1]) for words in said if words[0] == "downloaded"}
        for kind, numbers in (("upload", finished), ("download", downloaded)):
            for number in numbers:
                data = killed.content(kind, number)
                assert cache.path(Digest.of(data)).read_bytes() == data
                meta = cache.metainfo(Digest.of(data))
                assert meta is not None and meta.length == len(data)
                assert cache.is_persisted(Digest.of(data)) == (kind == "upload")
        acknowledged += len(finished) + len(downloaded)

        for record in cache.records():
            assert cache.stat(record.digest) == record.size_bytes, "nothing half made is seen"
            assert Digest.of(cache.path(record.digest).read_bytes()) == record.digest
        assert all(path.name in ("data", "_torrentmeta", "_persist") for path in _files(cache.root))

        offsets = {words[2]: (int(words[1]), int(words[3])) for words in said if words[0] == "offset"}
        for upload_id, (number, offset) in offsets.items():
            if number in finished or not (uploads.root / upload_id).exists():
                continue
            data = killed.content("upload", number)
            session = await uploads.get(upload_id)
            assert session.offset >= offset
            await session.write(data[session.offset :])
            await session.finish(Digest.of(data))

        pieces: dict[int, set[int]] = {}
        for words in said:
            if words[0] == "piece":
                pieces.setdefault(int(words[1]), set()).add(int(words[2]))
        for number in pieces.keys() - downloaded:
            data = killed.content("download", number)
            sums = SumBuilder(killed.LENGTHS)
            sums.update(data)
            meta = sums.finish(Digest.of(data))
            if cache.stat(meta.digest) is not None:
                continue
            partial = await partials.open(meta)
            assert set(partial.have) >= pieces[number], "verified pieces are used again"
            os.pwrite(partial.fileno(), data, 0)
            for piece in range(meta.piece_count):
                partial.mark(piece)
            await partial.commit()
            partial.close()
        uploads._idle_s = -1.0
        await uploads.sweep()
        assert list(uploads.root.iterdir()) == []
    assert acknowledged > KILLS
