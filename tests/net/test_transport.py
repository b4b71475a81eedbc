from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Sequence
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from roomkit.errors import Refused
from roomkit.net import GuardedTransport


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


async def loopback(host: str, port: int, /) -> Sequence[str]:
    return ["127.0.0.1"]


@pytest.mark.real_time
async def test_certificate_sni_and_host_are_the_names_while_the_connection_is_the_address(tmp_path: Path):
    cert, key = certificate(tmp_path, "media.example")
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(cert, key)
    sni: list[str | None] = []
    serving.sni_callback = lambda _, name, __: sni.append(name)
    hosts: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        hosts.append(next(line for line in head.splitlines() if line.startswith("host:")))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cafile=str(cert))
    inner = httpx2.AsyncHTTPTransport(verify=trusting, trust_env=False)
    transport = GuardedTransport(inner, resolver=loopback, allowed=["127.0.0.0/8"])
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        assert (await client.get(f"https://media.example:{port}/")).text == "ok"
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(f"https://other.example:{port}/")
    assert sni == ["media.example", "other.example"]
    assert hosts == [f"host: media.example:{port}"]
    server.close()
    await server.wait_closed()


async def test_in_a_client_every_request_is_checked():
    transport = GuardedTransport(httpx2.MockTransport(lambda _: httpx2.Response(200)), resolver=loopback)
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        with pytest.raises(Refused):
            await client.post("https://internal.example/", content=b"x")
