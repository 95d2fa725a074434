"""A service of WebSockets: it sends back what it gets, and says what it was asked for."""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve


async def echo(socket: ServerConnection) -> None:
    assert socket.request is not None
    await socket.send(f"asked for {socket.request.path}")
    async for message in socket:
        await socket.send(message)


async def main() -> None:
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
