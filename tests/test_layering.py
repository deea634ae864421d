"""The architecture is a test: what may import what, which rooms are pure, and where decisions are taken."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).parents[1] / "krakentx"

# From the ground up. A room may use the rooms of the floors below, and its neighbours as long as no circle comes of it.
FLOORS = (
    {"core"},
    {"config", "logs"},
    {"wire", "storage", "web"},
    {"swarm", "backend", "queue", "clients", "registry"},
    {"sim", "peer"},
    {"testfs", "origin", "tracker", "buildindex", "proxy", "agent"},
    {"herd", "cli"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
COMPONENTS = FLOORS[5]

# The door of a component for twistd shares its options with the other doors.
DOORS = {("tap.py", "krakentx.cli.twistd")}

PURE = ("core", "wire", "swarm", "sim")
LIBRARIES = {
    "core": {"attrs", "blake3", "isal", "mmh3", "typing_extensions"},
    "wire": {"attrs", "google", "typing_extensions"},
    "swarm": {"attrs", "typing_extensions"},
    "sim": {"attrs", "numba", "numpy", "typing_extensions"},
}
# Time and chance are arguments in these rooms, and nothing there waits or speaks to the world.
IMPURE = {"asyncio", "concurrent", "datetime", "logging", "selectors", "socket", "subprocess", "threading", "time"}

# All that the executor of effects may know of the swarm, and may ask of its Engine.
SWARM_FOR_PEERS = {"engine", "events", "effects", "config"}
ENGINE_FOR_PEERS = {"new_conn", "handle", "configure", "config", "blacklist", "stats", "load"}


@frozen
class Import:
    """One imported module, or name of a module, and where."""

    file: Path
    line: int
    name: str  # dotted, with what is taken from it: `krakentx.core.digest.Digest`

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name}"

    @property
    def room(self) -> str:
        """The room of the house that it is in; empty for other packages and for `krakentx` itself."""
        parts = self.name.split(".")
        return parts[1] if parts[0] == "krakentx" and len(parts) > 1 and parts[1] in FLOOR else ""


def sources(room: str = "") -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(tree: ast.AST, file: Path = Path("snippet.py")) -> Iterator[Import]:
    """Every import, also the ones inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield Import(file, node.lineno, f"{node.module}.{alias.name}")


def imports_of(room: str = "") -> list[Import]:
    return [found for file in sources(room) for found in imports(ast.parse(file.read_text()), file.relative_to(ROOT))]


def room_of(file: Path) -> str:
    return file.parts[0] if len(file.parts) > 1 else file.stem


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room_of(file.relative_to(ROOT)) for file in sources()} - {"__init__", "__main__"}
    assert rooms - set(FLOOR) == set(), "a new room: say on which floor it stands"


def upward(found: Import) -> bool:
    """It goes to a floor above, or from one component to another."""
    here = room_of(found.file)
    if not found.room or found.room == here or here not in FLOOR:
        return False
    if any(found.file.name == file and found.name.startswith(module) for file, module in DOORS):
        return False
    return FLOOR[found.room] > FLOOR[here] or {here, found.room} <= COMPONENTS


def test_nothing_imports_upward() -> None:
    assert [str(found) for found in imports_of() if upward(found)] == []


@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        ("core/digest.py", "krakentx.config.fields.size", True),
        ("wire/codec.py", "krakentx.swarm.events.Event", True),
        ("storage/pieces.py", "krakentx.peer", True),
        ("logs.py", "krakentx.web.site.KrakenSite", True),
        ("agent/logic.py", "krakentx.origin.logic.Origin", True),
        ("agent/logic.py", "krakentx.cli.twistd.ComponentOptions", True),
        ("agent/tap.py", "krakentx.cli.twistd.ComponentOptions", False),
        ("agent/tap.py", "krakentx.cli.main.main", True),
        ("herd/service.py", "krakentx.origin.service.build", False),
        ("web/bodies.py", "krakentx.storage.interfaces.IBlobReader", False),
        ("wire/codec.py", "krakentx.core.digest.Digest", False),
        ("cli/main.py", "krakentx.__version__", False),
    ],
)
def test_the_check_of_floors(file: str, name: str, expected: bool) -> None:
    assert upward(Import(Path(file), 1, name)) == expected


def test_neighbours_do_not_go_in_circles() -> None:
    uses: dict[str, set[str]] = {room: set() for room in FLOOR}
    for found in imports_of():
        here = room_of(found.file)
        if found.room and found.room != here and here in FLOOR and FLOOR[here] == FLOOR[found.room]:
            uses[here].add(found.room)
    while free := {room for room, others in uses.items() if not others & uses.keys()}:
        for room in free:
            del uses[room]
    assert uses == {}


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_use_few_libraries(room: str) -> None:
    wrong = []
    for found in imports_of(room):
        top = found.name.split(".")[0]
        if top == "krakentx":
            continue
        if top in IMPURE or top not in sys.stdlib_module_names | LIBRARIES[room]:
            wrong.append(str(found))
    assert wrong == []


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_never_load_twisted(room: str) -> None:
    """Not even by way of something that they import."""
    code = (
        f"import sys, pkgutil, importlib, krakentx.{room} as room\n"
        "for module in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "loaded = sorted(name for name in sys.modules if name.split('.')[0] in ('twisted', 'klein', 'treq'))\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent, timeout=60)


def unseeded(tree: ast.AST) -> list[int]:
    """Lines where the one random source of the process is used, in place of a `random.Random` that was passed in."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            lines += [node.lineno for alias in node.names if alias.name != "Random"]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            lines += [node.lineno] if node.attr != "Random" else []
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("random.Random", "Random") and not node.args:
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("room", ["wire", "swarm", "sim"])
def test_chance_is_passed_in(room: str) -> None:
    assert [f"{file}:{line}" for file in sources(room) for line in unseeded(ast.parse(file.read_text()))] == []


def test_the_reactor_enters_at_one_door() -> None:
    wrong = [
        str(found)
        for found in imports_of()
        if found.name.startswith("twisted.internet.reactor") and found.file.name != "tap.py"
    ]
    assert wrong == []


# ---- nothing under peer/ chooses a piece or a peer


def classes_of(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)}


EFFECTS = {f"krakentx.swarm.effects.{name}" for name in classes_of(ROOT / "swarm" / "effects.py")}
COPIERS = {"attrs.evolve", "attr.evolve", "copy.copy", "copy.replace", "dataclasses.replace"}
DECISIONS = EFFECTS | {f"krakentx.wire.messages.{name}" for name in ("PieceRequest", "CancelPiece")}


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is called by an imported name."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            base, dot, last = ast.unparse(node.func).rpartition(".")
            yield node.lineno, names.get(base, base) + dot + last if dot else names.get(last, last)


def made(tree: ast.AST) -> list[str]:
    """The decisions that this source makes: it calls the class of an effect, or of a message that asks for a piece.

    Naming the class in a `case` or in `isinstance` is no call: to carry out a decision is what an executor is for.
    """
    return [f"{line}: makes {name}" for line, name in calls(tree) if name in DECISIONS]


def choices(tree: ast.AST) -> list[str]:
    """Why this source of `peer/` may choose a piece or a peer; empty when it cannot."""
    problems = made(tree)
    problems += [f"{line}: could change a decision with {name}" for line, name in calls(tree) if name in COPIERS]
    for found in imports(tree):
        parts = found.name.split(".")
        if parts[:2] == ["krakentx", "swarm"] and not set(parts[2:3]) <= SWARM_FOR_PEERS:
            problems.append(f"{found.line}: looks into {found.name}")
        if parts[0] in ("random", "secrets"):
            problems.append(f"{found.line}: draws lots with {found.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).rpartition(".")[2]
            if owner in ("engine", "_engine") and node.attr not in ENGINE_FOR_PEERS:
                problems.append(f"{node.lineno}: asks the engine for {node.attr}")
    return problems


# The mind of the system that ours is held against in the simulator; nothing of it ever runs in a daemon.
LIKENESS = Path("sim/reference.py")


def test_decisions_are_made_in_the_swarm_alone() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{problem}"
        for file in sources()
        if room_of(file.relative_to(ROOT)) not in ("swarm", "wire") and file.relative_to(ROOT) != LIKENESS
        for problem in made(ast.parse(file.read_text()))
    ]
    assert wrong == []


@pytest.mark.parametrize("file", sources("peer"), ids=lambda file: file.name)
def test_nothing_under_peer_chooses_a_piece_or_a_peer(file: Path) -> None:
    assert choices(ast.parse(file.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "from krakentx.swarm.picker import Picker",
        "from krakentx.swarm import requests",
        "import krakentx.swarm.slots",
        "import random",
        "from random import choice",
        "def later():\n    from krakentx.swarm.handout import hand_out",
        "from krakentx.swarm.effects import Dial\nDial(conn, torrent, peer, 5.0)",
        "from krakentx.swarm.effects import ReceivePiece as R\nR(conn, torrent, 3)",
        "from krakentx.swarm import effects\neffects.FetchFromOrigin(torrent, (1,), 2.0)",
        "import krakentx.swarm.effects\nkrakentx.swarm.effects.SendPiece(conn, torrent, 1)",
        "from krakentx.wire.messages import PieceRequest\nself.write(PieceRequest(0, 0, 4))",
        "from krakentx.wire import messages as m\nself.write(m.PieceRequest(0, 0, 4))",
        "from attrs import evolve\nevolve(effect, peer=other)",
        "import attrs\nattrs.evolve(effect, index=2)",
        "self.engine._torrents[torrent].picker.next()",
        "engine.picker",
    ],
)
def test_the_check_sees_a_choice(source: str) -> None:
    assert choices(ast.parse(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "from krakentx.swarm.engine import Engine\nfrom krakentx.swarm.events import Tick\nengine.handle(Tick(0), now)",
        "from krakentx.swarm.effects import Dial\nmatch effect:\n    case Dial(conn=conn, peer=peer):\n        pass",
        "from krakentx.swarm.effects import Dial\nassert isinstance(effect, Dial)",
        "from krakentx.wire.messages import PiecePayload\nself.write(PiecePayload(0, 0, 4))",
        "self._engine.blacklist(now)",
    ],
)
def test_the_check_lets_an_executor_work(source: str) -> None:
    assert choices(ast.parse(source)) == []


def test_the_check_of_chance_sees_a_slip() -> None:
    assert unseeded(ast.parse("import random\nrandom.choice(x)")) == [2]
    assert unseeded(ast.parse("from random import shuffle")) == [1]
    assert unseeded(ast.parse("import random\nrandom.Random()")) == [2]
    assert unseeded(ast.parse("import random\nrng: random.Random = random.Random(7)")) == []
