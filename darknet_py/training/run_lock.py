"""One training at a time writes the files of a name in a folder."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TextIO

from darknet_py.errors import TrainError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # by the file system
_held: set[Path] = set()  # by this process, which a lock of the system does not keep from locking again


class RunLock:
    """Keeps other trainings out while it is entered. Raises TrainError where one is running.

    The system drops the lock when its process ends, however that happens, and a loader process does not inherit it; the
    file that a killed training leaves behind is taken over. Where the file system has no locks, the process that the
    file names is looked for.

    Args:
        path: The lock file, which holds the owner's process id and host.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: TextIO | None = None

    def __enter__(self) -> RunLock:
        try:
            self._file = self._locked()
        except OSError as error:
            raise TrainError(f"{self.path}: cannot write: {error.strerror or error}") from error
        _held.add(self.path.resolve())
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Ends the lock and removes its file."""
        if self._file is None:
            return
        self.path.unlink(missing_ok=True)  # before it is closed: whoever locks it afterwards sees that it is gone
        self._file.close()
        self._file = None
        _held.discard(self.path.resolve())

    def _locked(self) -> TextIO:
        if self.path.resolve() in _held:  # opening it once more would drop the lock
            raise self._refusal(f"{os.getpid()} {socket.gethostname()}")
        while True:
            file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115  it stays open
            file.seek(0)
            owner = file.read(200)
            if not _lock(file, owner):
                file.close()
                raise self._refusal(owner)
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                break
            file.close()  # its owner has just removed it
        file.truncate(0)
        file.write(f"{os.getpid()} {socket.gethostname()}\n")
        file.flush()
        return file

    def _refusal(self, owner: str) -> TrainError:
        process, host = (*owner.split(), "", "")[:2]
        who = f"process {process} on {host}" if host else "another process"
        return TrainError(
            f"{self.path.parent}: a training is writing these files already ({who}); wait until it ends, or choose "
            "another folder (out, --out)"
        )


def _lock(file: TextIO, owner: str) -> bool:
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                return False
        else:
            return True
    process, host = (*owner.split(), "", "")[:2]
    return host != socket.gethostname() or not process.isdigit() or not is_running(int(process))


def is_running(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it belongs to another user
    return True
