"""A real IMAP server for one test: Dovecot over a folder of letters."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PASSWORD = "the-right-password"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
_CONFIG = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
instance_name = roomkit-{port}
ssl = yes
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
disable_plaintext_auth = no
auth_failure_delay = 0
protocols = imap
listen = 127.0.0.1
default_internal_user = {internal}
default_login_user = {login}
default_internal_group = {group}
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:{folder}/mail/%u
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%u
}}
namespace inbox {{
  inbox = yes
}}
"""


@dataclass
class Mailbox:
    """One server; `put` lays a letter into somebody's mailbox as a mail server would."""

    folder: Path
    port: int
    tls_port: int
    uid: int
    gid: int
    count: int = 0

    def put(self, data: bytes, user: str = "help") -> None:
        self.count += 1
        box = self.folder / "mail" / user
        for name in ("", "new", "cur", "tmp"):
            (box / name).mkdir(parents=True, exist_ok=True)
            os.chown(box / name, self.uid, self.gid)
        letter = box / "tmp" / f"{1_900_000_000 + self.count}.M{self.count}.test"
        letter.write_bytes(data)
        os.chown(letter, self.uid, self.gid)
        letter.rename(box / "new" / letter.name)

    def number_anew(self, user: str = "help") -> None:
        """As after a restore: another UIDVALIDITY, and every letter under a number of its own."""
        box = self.folder / "mail" / user
        for name in box.glob("dovecot*"):
            name.unlink()
        listed = box / "dovecot-uidlist"
        listed.write_text(f"3 V{2_000_000_000 + self.count} N1 Gabc\n")
        os.chown(listed, self.uid, self.gid)


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """Dovecot on a port of its own; skips where it is not installed, except in CI."""
    program = shutil.which("dovecot", path=_PATH)
    if program is None:
        if os.environ.get("CI") == "true":
            raise RuntimeError("dovecot is not installed: .ci/dovecot did not run")
        pytest.skip("Dovecot is not installed (apt-get install dovecot-imapd)")
    folder = Path(tempfile.mkdtemp(prefix="roomkit-dovecot-"))
    folder.chmod(0o755)
    with socket.socket() as one, socket.socket() as two:
        ports: list[int] = []
        for free in (one, two):
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    port, tls_port = ports
    certificate(folder)
    root = os.getuid() == 0
    me = pwd.getpwuid(os.getuid())
    owner = pwd.getpwnam("dovecot") if root else me
    names = ("dovecot", "dovenull", "dovecot") if root else (me.pw_name, me.pw_name, str(me.pw_gid))
    text = _CONFIG.format(
        folder=folder,
        port=port,
        tls_port=tls_port,
        password=PASSWORD,
        uid=owner.pw_uid,
        gid=owner.pw_gid,
        internal=names[0],
        login=names[1],
        group=names[2],
    )
    (folder / "dovecot.conf").write_text(text)
    (folder / "mail").mkdir()
    os.chown(folder / "mail", owner.pw_uid, owner.pw_gid)
    server = subprocess.Popen([program, "-F", "-c", str(folder / "dovecot.conf")])
    try:
        _until_it_answers(server, port, folder)
        yield Mailbox(folder, port, tls_port, owner.pw_uid, owner.pw_gid)
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def certificate(folder: Path) -> Path:
    """A certificate of "localhost" that nobody else vouches for, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / "cert.pem"


def _until_it_answers(server: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as line:
                if line.recv(4) == b"* OK":
                    return
        except OSError:
            pass
        if server.poll() is not None:
            break
        time.sleep(0.05)
    log = folder / "log"
    raise RuntimeError(f"dovecot does not answer: {log.read_text() if log.exists() else 'it has ended'}")
