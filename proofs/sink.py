"""The vendor: keeps every line it is sent in a file, safe on disk, before it answers. `python -m proofs.sink FILE`"""

from __future__ import annotations

import asyncio
import os
import sys


async def main(path: str) -> None:
    kept = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    number = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        try:
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    return
                os.write(kept, line)
                os.fdatasync(kept)
                number += 1
                writer.write(b"vendor-%d\n" % number)
        except ConnectionError:
            pass  # The server was killed; what it had sent is kept.
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
