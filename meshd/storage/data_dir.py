"""The data directory: who may use it, its lock, its permissions, and moving damaged files aside.

Rules: one process at a time (an advisory lock on `meshd.lock`, which the kernel drops when the
process ends, however it ends); directories we make are 0700 and files 0600; a damaged file is
renamed, never deleted.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from meshd.errors import DataDirLocked

LOCK_NAME = "meshd.lock"
DATABASE_NAME = "meshd.db"
#: Where a new database is made before it is put in place; left over only by a crash.
WORKSHOP_NAME = "workshop"
#: SQLite's companions of the database file; they belong to it and move with it.
COMPANION_SUFFIXES = ("-wal", "-shm", "-journal")


class DirectoryLock:
    """The exclusive right to write in one data directory, held until `release`."""

    def __init__(self, data_dir: Path) -> None:
        """Take the lock; raises DataDirLocked when another process holds it."""
        self._path = data_dir / LOCK_NAME
        self._fd: int | None = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            self._fd = None
            who = f"process {holder}" if holder else "another process"
            raise DataDirLocked(
                f"the data directory {data_dir} is in use by {who}; "
                "stop that one, or give this node its own directory with --data-dir"
            ) from err
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the directory back. Idempotent."""
        if self._fd is not None:
            # The file stays: removing it would let a third process lock another inode beside us.
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def prepare_directory(data_dir: Path) -> list[str]:
    """Make the directory if it is missing; returns sentences about what is unsafe with it.

    An existing directory keeps its mode: it may be shared with other programs on purpose.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if data_dir.stat().st_mode & 0o077:
            return [
                f"the data directory {data_dir} is open to other users; its files are not, "
                f"but `chmod 700 {data_dir}` would be safer"
            ]
    return []


def create_private(path: Path) -> bool:
    """Make an empty 0600 file unless it exists; true when it was made."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def free_name(database: Path, label: str) -> str:
    """The first `NAME.LABEL-N` that no file beside the database has."""
    number = 1
    while any(
        database.with_name(f"{database.name}.{label}-{number}{end}").exists()
        for end in ("", *COMPANION_SUFFIXES)
    ):
        number += 1
    return f"{database.name}.{label}-{number}"


def put_in_place(new: Path, database: Path, label: str) -> list[str]:
    """Make `new` the database in one step.

    The former one and its companions get the first free `NAME.LABEL-N`.

    Returns the new names of the former files. A crash on the way leaves either database in place, and the
    former one under one of its names. Companions move first: a write-ahead log must never meet another
    database than its own.
    """
    kept = []
    free = free_name(database, label)
    if database.exists():
        _second_name(database, database.with_name(free))
        kept.append(free)
    for suffix in COMPANION_SUFFIXES:
        companion = database.with_name(database.name + suffix)
        if companion.exists():
            companion.rename(database.with_name(free + suffix))
            kept.append(free + suffix)
    sync_directory(database.parent)
    new.replace(database)
    sync_directory(database.parent)
    return kept


def _second_name(path: Path, name: Path) -> None:
    try:
        os.link(path, name)
    except OSError:  # a file system without hard links
        path.rename(name)


def orphaned_companions(database: Path) -> bool:
    """Whether a write-ahead log or journal lies there without its database."""
    return not database.exists() and any(
        database.with_name(database.name + suffix).exists() for suffix in COMPANION_SUFFIXES
    )


def sync_directory(directory: Path) -> None:
    """Force renames and new names in a directory to the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step, 0600, forced to the disk; readers see the old or the new, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb", closefd=True) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
