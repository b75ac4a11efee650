"""TLS in front of a Redis, with a certificate of a private authority."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.wait import DEADLINE

_CHUNK = 65536


@dataclass(frozen=True)
class TlsFront:
    """Where encrypted connections are accepted, and the authority that its certificate is from."""

    port: int
    authority: Path

    def url(self, credentials: str = "") -> str:
        at = f"{credentials}@" if credentials else ""
        return f"rediss://{at}localhost:{self.port}?ssl_ca_certs={self.authority}"


@contextmanager
def tls_front(folder: Path, socket: Path) -> Iterator[TlsFront]:
    """Accept TLS on a port of loopback and pass it on to the Redis at the unix socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(folder))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_unix_connection(str(socket))
        try:
            copies = [_copy(reader, to_redis), _copy(from_redis, writer)]
            await asyncio.wait(map(asyncio.ensure_future, copies), return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_redis.transport.abort()
            writer.transport.abort()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(pass_on, "localhost", 0, ssl=context)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(DEADLINE)
    try:
        yield TlsFront(server.sockets[0].getsockname()[1], folder / "ca.pem")
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(DEADLINE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE)
        loop.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Make an authority and a certificate of it for localhost; return the certificate and its key."""
    authority, key = folder / "ca.pem", folder / "ca.key"
    certificate, own_key, request = folder / "cert.pem", folder / "cert.key", folder / "cert.csr"
    names = folder / "names"
    # Python 3.13 is strict about what a certificate must say
    names.write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj"]
    signs = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl(*new, "/CN=authority", "-x509", "-days", "2", *signs, "-keyout", key, "-out", authority)
    _openssl(*new, "/CN=localhost", "-keyout", own_key, "-out", request)
    _openssl(
        *("x509", "-req", "-days", "2", "-CAcreateserial", "-extfile", names),
        *("-in", request, "-CA", authority, "-CAkey", key, "-out", certificate),
    )
    return certificate, own_key


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=DEADLINE)
