"""Build everything in order, serve, and take it down in the order read backwards."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from urllib.parse import quote

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from broker import recipe, statedir, workspaces
from broker.audit import audit_of
from broker.auth import load_or_make_token
from broker.config import Config, Loaded
from broker.drain import Drain
from broker.errors import BrokerError, ProfileBroken, StateDirError
from broker.faults import Bounds
from broker.marks import Marks
from broker.metrics import Metrics
from broker.node import Node
from broker.pools import Pools
from broker.quotas import Quotas
from broker.scribe import Scribe
from broker.service import Service, ServiceLimits
from broker.signed import checker
from broker.store import Store
from broker.supply import Supply
from broker.tokens import Tokens
from broker.upkeep import Upkeep
from broker.valkey import Valkey
from broker.web import routes
from broker.web.door import House
from kernels.errors import KernelError

logger = logging.getLogger(__name__)

INSIST = 3  # times that somebody tells the broker to end, after which it does not finish anything
BODY_SLACK = 4  # a frame up to this many times the bound is read and refused, not cut off


@dataclass(frozen=True, slots=True)
class Running:
    """A broker that serves."""

    url: str
    token: str
    isolation: str  # of the default profile, for people
    service: Service
    upkeep: Upkeep


def main(loaded: Loaded, *, ready_file: Path | None = None) -> int:
    """Serve until told to stop; return the exit status. Nothing here ends in a traceback."""
    logging.basicConfig(
        level=loaded.config.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    raise_open_files()
    try:
        asyncio.run(_until_signalled(loaded.config, ready_file))
    except (BrokerError, KernelError, OSError) as error:
        print(f"broker: {error}", file=sys.stderr)  # noqa: T201 - the last word on the terminal
        return 1
    return 0


def raise_open_files() -> None:
    """Let this process open as many files as it may: its soft limit becomes the hard one."""
    # A kernel takes some dozen descriptors here: the usual 1024 would end below a hundred kernels.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # fs.nr_open may have been lowered below the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _until_signalled(config: Config, ready_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    told = count(1)

    def heed(number: int) -> None:
        if next(told) >= INSIST:  # whatever it waits for; kernels outlive a broker anyway
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heed, number)

    def ready(running: Running) -> None:
        # What is there by now stays: without this, each full collection looks through all of the
        # libraries again, for some 20 ms in which nobody is answered.
        gc.collect()
        gc.freeze()
        if ready_file is not None:
            statedir.write_private(ready_file, _address(running))
        # One that was given is known to whoever gave it, and this may go to a log.
        _announce(running, "" if config.token else running.token)

    await serve(config, stop=stop, ready=ready)


async def serve(config: Config, *, stop: asyncio.Event, ready: Callable[[Running], None]) -> None:
    """Be a broker until `stop` is set. Raises BrokerError or KernelError if it cannot begin."""
    state = statedir.prepare(statedir.find(config.state_dir))
    async with AsyncExitStack() as stack:
        stack.callback(statedir.take(state))
        token = config.token or load_or_make_token(state / "token")
        secret = statedir.load_or_make_secret(state / "secret")
        # Listening comes first, because what can fail cheaply should fail first.
        sockets, url = _listening(config, stack)
        node = config.node or statedir.node_name(state)
        metrics = Metrics()
        audit = audit_of(config.audit)
        stack.push_async_callback(audit.aclose)
        store, valkey = await _open_store(stack, config, state, node)
        supply = Supply(config, state, secret, metrics)
        stack.push_async_callback(supply.aclose)
        marks = Marks(state / "marks")
        stack.callback(marks.close)
        service = _service(config, store, supply.pools, metrics, marks)
        service.on_change(audit.session_changed)
        told = Node(node, url, config.pool.max_kernels, service, supply.default, valkey)
        adopted = await supply.adopt(service)
        marks.sweep()
        stack.push_async_callback(
            _end, asyncio.create_task(workspaces.sweep(service), name="the sweep of files")
        )
        upkeep = await stack.enter_async_context(
            Upkeep(service, lease=config.redis.lease, describe=told.describe)
        )
        scribe = await stack.enter_async_context(Scribe(service, store.cells))
        stack.push_async_callback(supply.pools.stop)
        supply.pools.start()
        stack.push_async_callback(service.aclose)
        await _until_ready(supply, adopted=bool(adopted))
        letting_in = Tokens.single(token, rows=store.tokens, signed=checker(config.jwt))
        stack.push_async_callback(letting_in.aclose)
        house = House(
            service=service,
            tokens=letting_in,
            metrics=metrics,
            bounds=Bounds(config.wire.max_frame, config.wire.max_depth),
            describe=told.describe,
            processes=told.processes,
            scribe=scribe,
            drain=Drain(service),
            languages=recipe.languages(config),
            unready=lambda: told.unready(store_reachable=upkeep.store_reachable),
            most_cells=config.session.transcript_cells,
            bad_frames=config.wire.bad_frames,
            client_backlog=config.wire.client_backlog,
            audit=audit,
        )
        server = _server(config, house, sockets)
        running = Running(url, token, supply.default.told, service, upkeep)
        statedir.write_private(state / "server.json", _address(running))
        stack.callback((state / "server.json").unlink, missing_ok=True)
        ready(running)
        await stop.wait()
        await _drain(service, config.drain_timeout, stop)
        server.stop()


def _listening(config: Config, stack: AsyncExitStack) -> tuple[list[socket.socket], str]:
    """Return the sockets of our own, until the stack is unwound, and the URL they are at."""
    sockets = _listen(config.host, config.port)
    for one in sockets:
        stack.callback(one.close)
    return sockets, _url(config.host, sockets[0].getsockname()[1])


async def _end(task: asyncio.Task[None]) -> None:
    """End what need not be finished."""
    task.cancel()
    [ended] = await asyncio.gather(task, return_exceptions=True)
    if isinstance(ended, Exception):
        logger.error("%s has failed", task.get_name(), exc_info=ended)


async def _until_ready(supply: Supply, *, adopted: bool) -> None:
    """Wait for the first kernels. Raises ProfileBroken, but where some were adopted."""
    try:
        await supply.ready()
    except ProfileBroken:
        # Live sessions outrank new ones: they are served even if no further kernel can start.
        if not adopted:
            raise


async def _open_store(
    stack: AsyncExitStack, config: Config, state: Path, node: str
) -> tuple[Store, Valkey | None]:
    """Connect to the configured store, or to one of our own."""
    url, valkey = config.redis.url, None
    if not url:
        valkey = await stack.enter_async_context(Valkey(state, logger))
        url = valkey.url
    store = await Store.connect(
        url,
        prefix=config.redis.prefix,
        node=node,
        lease=config.redis.lease,
        keep=config.session.record_ttl,
    )
    stack.push_async_callback(store.aclose)
    return store, valkey


def _server(config: Config, house: House, sockets: list[socket.socket]) -> HTTPServer:
    most = BODY_SLACK * config.wire.max_frame
    application = routes.application(
        house,
        jupyter=config.jupyter,
        websocket_ping_interval=config.wire.ping_interval,
        websocket_ping_timeout=config.wire.ping_interval,
        websocket_max_message_size=most,
        trusted_origins=config.wire.allow_origins,
    )
    server = HTTPServer(application, max_body_size=most, max_buffer_size=most + (1 << 20))
    server.add_sockets(sockets)
    return server


def _service(config: Config, store: Store, pools: Pools, metrics: Metrics, marks: Marks) -> Service:
    return Service(
        store=store,
        pools=pools,
        default_profile=config.default_profile,
        session_limits={
            name: recipe.session_limits(profile, config)
            for name, profile in config.profiles.items()
        },
        limits=ServiceLimits(config.pool.acquire_timeout, config.session.record_ttl),
        metrics=metrics,
        quotas=Quotas(config.tenant, config.tenants, clock=time.monotonic, calendar=time.time),
        marks=marks,
    )


async def _drain(service: Service, timeout: float, stop: asyncio.Event) -> None:
    """Let running executions finish, for at most `timeout` s or until told to stop again."""
    stop.clear()
    if busy := sum(session.busy for session in service.sessions.values()):
        logger.info("draining: %d sessions are busy; a second signal ends them", busy)
    waits = [asyncio.create_task(service.drain()), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


def _listen(host: str, port: int) -> list[socket.socket]:
    try:
        return bind_sockets(port, host)
    except OSError as error:
        hint = "; choose another with --port" if error.errno == errno.EADDRINUSE else ""
        raise StateDirError(f"cannot listen on {host}:{port}: {error.strerror}{hint}") from error


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address(running: Running) -> bytes:
    fields = {"url": running.url, "token": running.token, "pid": os.getpid()}
    return json.dumps(fields).encode()


def _announce(running: Running, token: str) -> None:
    # What stands behind `#` stays in the browser: no server and no log of one sees it.
    fragment = f"#token={quote(token, safe='')}" if token else ""
    warm = sum(pool.snapshot().warm for pool in running.service.pools.values())
    kernels = "kernel" if warm == 1 else "kernels"
    print(  # noqa: T201 - the ready line is what a person waits for
        f"kernel-broker {version('kernel-broker')} is ready with {warm} warm {kernels},"
        f" isolation {running.isolation}\n"
        f"  url    {running.url}\n"
        f"  token  {token or 'as configured'}\n"
        f"  open   {running.url}/{fragment}\n"
        f"  try    broker run -s demo 'x = 20'",
        flush=True,
    )
