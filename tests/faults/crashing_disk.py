"""A disk that may lose its power at any write: all that SQLite does to its files is noted, in order.

From the notes every state is made that a power cut could leave: what was synced is there; of what was written since
then, each write is there, is not, or is torn into sectors of which some are there, whatever their order was. The shared
memory beside the database is gone. It works on the very library that Python uses, by exchanging three of its file
methods.
"""

import ctypes
import ctypes.util
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 512
_OK = 0


@dataclass(frozen=True)
class Write:
    """Bytes that were written, or with None the end of a file that was cut there."""

    file: str
    offset: int
    data: bytes | None


@dataclass(frozen=True)
class Synced:
    """All that was written to the file before is on the disk."""

    file: str


@dataclass(frozen=True)
class Answered:
    """A client was told so: it must be true from here on."""

    said: Any


Note = Write | Synced | Answered


@dataclass
class Disk:
    """The notes of one folder; a disk that `lies` says that it has synced when it has not."""

    folder: Path
    lies: bool = False
    notes: list[Note] = field(default_factory=list)
    base: dict[str, bytes] = field(default_factory=dict)

    def note(self, note: Note) -> None:
        """What happened next."""
        if not (self.lies and isinstance(note, Synced)):
            self.notes.append(note)

    def answered(self, said: Any) -> None:
        """A client has its answer."""
        self.note(Answered(said))

    def after_power_cuts(self, cuts: list[int], chance: random.Random) -> "Iterator[tuple[State, list[Any]]]":
        """For each cut, which is a number of notes: a state that it may leave, and what had been answered before."""
        state, answered, at = State(dict(self.base)), [], 0
        for cut in sorted(cuts):
            for note in self.notes[at:cut]:
                if isinstance(note, Answered):
                    answered.append(note.said)
                else:
                    state.add(note)
            at = cut
            yield state.cut(chance), list(answered)


@dataclass
class State:
    """Files as they are on the disk, and what was written to them since and may not be."""

    files: dict[str, bytes]
    pending: list[Write] = field(default_factory=list)

    def add(self, note: Write | Synced) -> None:
        """Go one note further."""
        if isinstance(note, Write):
            self.pending.append(note)
            return
        for write in (w for w in self.pending if w.file == note.file):
            self._apply(write)
        self.pending = [w for w in self.pending if w.file != note.file]

    def cut(self, chance: random.Random) -> "State":
        """One of the states that a power cut may leave now."""
        left, kept = State(dict(self.files)), chance.choice([0.0, 0.5, 0.9, 1.0])
        for write in self.pending:
            if chance.random() < kept:
                left._apply(write)
            elif write.data and chance.random() < 0.5:
                for begin in range(0, len(write.data), SECTOR):
                    if chance.random() < 0.5:
                        part = write.data[begin : begin + SECTOR]
                        left._apply(Write(write.file, write.offset + begin, part))
        return left

    def write_to(self, folder: Path) -> None:
        """Make the files."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)

    def _apply(self, write: Write) -> None:
        content = bytearray(self.files.get(write.file, b""))
        if write.data is None:
            del content[write.offset :]
        else:
            content.extend(b"\0" * (write.offset - len(content)))
            content[write.offset : write.offset + len(write.data)] = write.data
        self.files[write.file] = bytes(content)


# --- the library -------------------------------------------------------------------------------------------------


_METHODS = (
    "close read write truncate sync size lock unlock check_reserved_lock control sector_size characteristics "
    "shm_map shm_lock shm_barrier shm_unmap fetch unfetch"
)


class _Methods(ctypes.Structure):  # sqlite3_io_methods
    _fields_ = [("version", ctypes.c_int), *((name, ctypes.c_void_p) for name in _METHODS.split(" "))]


class _File(ctypes.Structure):  # sqlite3_file
    _fields_ = [("methods", ctypes.POINTER(_Methods))]


class _System(ctypes.Structure):  # the beginning of sqlite3_vfs
    _fields_ = [
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("longest_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
    ]


_FILE = ctypes.POINTER(_File)
_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, _FILE, ctypes.c_int, ctypes.POINTER(ctypes.c_int)
)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_int)


class _Watched:
    """One open file whose writes are noted; keeps what the library points to."""

    def __init__(self, disk: Disk, name: str, file: Any) -> None:
        original = file.contents.methods.contents
        self.methods = _Methods.from_buffer_copy(original)
        write, truncate = _WRITE(original.write), _TRUNCATE(original.truncate)
        sync = _SYNC(original.sync)

        def noting_write(file: Any, data: int, size: int, offset: int) -> int:
            disk.note(Write(name, offset, ctypes.string_at(data, size)))
            return write(file, data, size, offset)

        def noting_truncate(file: Any, size: int) -> int:
            disk.note(Write(name, size, None))
            return truncate(file, size)

        def noting_sync(file: Any, flags: int) -> int:
            result = sync(file, flags)
            if result == _OK:
                disk.note(Synced(name))
            return result

        self.calls = (_WRITE(noting_write), _TRUNCATE(noting_truncate), _SYNC(noting_sync))
        for method, call in zip(("write", "truncate", "sync"), self.calls, strict=True):
            setattr(self.methods, method, ctypes.cast(call, ctypes.c_void_p).value)
        file.contents.methods = ctypes.pointer(self.methods)


@contextmanager
def watched(folder: Path, *, lies: bool = False) -> Iterator[Disk]:
    """Note all that SQLite does in `folder`, in this process, to files that are opened in the block.

    Raises `RuntimeError` where Python does not use the system's library.
    """
    library = ctypes.CDLL(ctypes.util.find_library("sqlite3") or "libsqlite3.so.0")
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_System)
    system = library.sqlite3_vfs_find(None).contents
    original, real_open = system.open, _OPEN(system.open)
    disk, kept = Disk(folder, lies), []
    disk.base = {path.name: path.read_bytes() for path in folder.glob("*.db")}

    def noting_open(vfs: int, name: int, file: Any, flags: int, flags_out: Any) -> int:
        result = real_open(vfs, name, file, flags, flags_out)
        path = Path(ctypes.string_at(name).decode()) if name else None
        if result == _OK and path is not None and path.parent == folder:
            kept.append(_Watched(disk, path.name, file))
        return result

    call = _OPEN(noting_open)
    system.open = ctypes.cast(call, ctypes.c_void_p).value
    try:
        _must_be_the_one(folder, disk)
        yield disk
    finally:
        system.open = original


def _must_be_the_one(folder: Path, disk: Disk) -> None:
    import sqlite3

    probe = sqlite3.connect(folder / "probe")
    probe.execute("CREATE TABLE probe (n)")
    probe.close()
    (folder / "probe").unlink()
    if not disk.notes:
        raise RuntimeError("Python has a SQLite of its own here, whose files cannot be watched")
    disk.notes.clear()


def cuts_at_random(disk: Disk, many: int, chance: random.Random) -> list[int]:
    """So many instants, the end among them."""
    return [len(disk.notes), *(chance.randrange(len(disk.notes)) for _ in range(many - 1))]
