"""``python -m tests.servers aiohttp|uvicorn [certificate key [authority]]`` prints its URLs, and runs until killed."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import socket
import ssl


def listen(port: int = 0) -> socket.socket:
    listening = socket.create_server(("127.0.0.1", port))
    listening.setblocking(False)
    return listening


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("tls", nargs="*")
    parser.add_argument("--unix-socket")
    arguments = parser.parse_args()
    serve = importlib.import_module(f"tests.servers.with_{arguments.library}").serve

    plain = [listen()]
    urls = [f"ws://127.0.0.1:{plain[0].getsockname()[1]}"]
    if arguments.unix_socket is not None:
        plain.append(socket.socket(socket.AF_UNIX))
        plain[1].bind(arguments.unix_socket)
    await serve(plain, None)

    if arguments.tls:
        certificate, key, *authority = arguments.tls
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        if authority:
            context.load_verify_locations(authority[0])
            context.verify_mode = ssl.CERT_OPTIONAL
        secure = listen()
        urls.append(f"wss://127.0.0.1:{secure.getsockname()[1]}")
        await serve([secure], context)

    print(*urls, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
