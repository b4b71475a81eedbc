"""A PostgreSQL server of one's own, for tests and proofs: made in a temporary folder, gone at the end.

    with PostgresCluster() as cluster:
        store = PostgresStore(cluster.url)

It runs Debian's binaries (`apt-get install postgresql`), keeps fsync on, and listens on a loopback port and a socket.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from roomkit.errors import ConfigError

_SETTINGS = """
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = '64MB'
max_wal_size = '1GB'
checkpoint_timeout = '30min'
log_min_messages = warning
logging_collector = off
"""


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, the newest version first; None when there is none."""

    def version(path: Path) -> float:
        return float(path.parent.name) if path.parent.name.replace(".", "", 1).isdigit() else 0.0

    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version, reverse=True)
    if (found := shutil.which("initdb")) is not None:
        folders.append(Path(found).resolve().parent)
    return next((path for path in folders if (path / "initdb").exists() and (path / "postgres").exists()), None)


class PostgresCluster:
    """A running server. As root it is run by the user `postgres`, because PostgreSQL refuses to be root."""

    def __init__(self, settings: str = "", *, folder: str | None = None) -> None:
        """`settings` are further lines of postgresql.conf. `folder` is where its own folder is made: by default in
        memory, where it has room. Raises `ConfigError` where the binaries are missing."""
        binaries = find_binaries()
        if binaries is None:
            raise ConfigError("PostgreSQL's binaries are missing; install them (Debian: apt-get install postgresql)")
        self._binaries = binaries
        self._settings = settings
        self._where = folder or _roomy()
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._folder: Path | None = None
        self._port = 0
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        assert self._folder is not None, "the cluster is not started"
        return self._folder

    @property
    def url(self) -> str:
        return self.url_of(self._port)

    @property
    def port(self) -> int:
        return self._port

    def url_of(self, port: int) -> str:
        """The URL of this server as seen through another port, such as a proxy's."""
        return f"postgresql://{self._user}@127.0.0.1:{port}/postgres"

    def start(self) -> Self:
        """Makes the cluster the first time, then starts it and waits until it answers."""
        if self._folder is None:
            self._create()
        with (self.folder / "log").open("a") as log:
            self._server = self._begin("postgres", "-D", str(self.folder / "data"), log=log)
        ready = (str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port))
        while subprocess.run(ready, check=False).returncode != 0:  # noqa: S603 - our own arguments
            if self._server.poll() is not None:
                raise ConfigError(f"PostgreSQL does not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.02)
        return self

    def stop(self, *, crash: bool = False) -> None:
        """Ends all sessions and writes everything down; with `crash` it writes nothing down and recovers at the next
        start. May be called again."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self._server.wait()
            self._server = None

    def kill(self) -> None:
        """SIGKILL for every process of the server, at once."""
        assert self._server is not None, "the cluster is not running"
        leader = self._server.pid
        children = [int(pid) for pid in Path(f"/proc/{leader}/task/{leader}/children").read_text().split()]
        for pid in (leader, *children):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._server.wait()
        self._server = None
        while any(_runs(pid) for pid in children):  # Its shared memory is in use until the last one is gone.
            time.sleep(0.01)

    def close(self) -> None:
        """Ends the server and removes its folder. May be called again."""
        self.stop(crash=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="roomkit-pg-", dir=self._where))
        if os.geteuid() == 0:
            shutil.chown(self._folder, self._user)
        data = self._folder / "data"
        arguments = ("-U", self._user, "-E", "UTF8", "--no-locale", "-A", "trust", "--no-sync")
        with (self._folder / "log").open("w") as log:
            if self._begin("initdb", "-D", str(data), *arguments, log=log).wait() != 0:
                raise ConfigError(f"initdb failed: {(self._folder / 'log').read_text()[-500:]}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        with (data / "postgresql.conf").open("a") as file:
            file.write(
                f"{_SETTINGS}port = {self._port}\nunix_socket_directories = '{self._folder}'\n{self._settings}\n"
            )

    def _begin(self, program: str, *arguments: str, log: IO[str]) -> subprocess.Popen[bytes]:
        user = self._user if os.geteuid() == 0 else None
        return subprocess.Popen(  # noqa: S603 - our own arguments
            (str(self._binaries / program), *arguments),
            cwd=self._folder,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,  # Ctrl-C is for the tests; the server ends when they say so.
        )


def _roomy() -> str | None:
    memory = Path("/dev/shm")  # noqa: S108 - a folder with a random name is made in it
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30 else None


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] != "Z"
    except OSError:
        return False
