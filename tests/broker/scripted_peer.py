"""A scripted peer: a real HTTP and WebSocket server that speaks the protocol and runs nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket

TOKEN = "a-token"


class Peer:
    """What the peer is to answer, and what it was asked. One loop in one thread."""

    def __init__(self) -> None:
        self.url = ""
        self.token = TOKEN
        self.subprotocols = ["broker.v1.msgpack", "broker.v1.json"]
        # Code → the events to send for it. Special ones: {"do": "wait"} for an interrupt,
        # {"do": "close", "code": n}, {"do": "cut"} the connection, {"do": "fault", …},
        # {"do": "deaf"} to what follows: it is never said, and the request is forgotten.
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.attach: dict[str, dict[str, Any]] = {}  # session → fields of its `session` event
        self.http: dict[
            tuple[str, str], Any
        ] = {}  # method, path → (status, answer) or what gives it
        self.queries: list[dict[str, str]] = []  # of the sockets
        self.requests: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.sockets: list[Socket] = []
        self.logs: dict[str, list[dict[str, Any]]] = {}  # session → its numbered events
        self.gone: dict[str, int] = {}  # session → how many of them are not kept
        self.open: dict[str, list[str]] = {}  # session → requests that are not done
        self.held: dict[str, list[dict[str, Any]]] = {}  # request → what follows the wait
        self.configures = "answers"  # what is set; or "refuses" it, or "ignores" it
        self.heard = threading.Condition()
        self.knocks = 0  # sockets that were asked for
        self.gate = asyncio.Event()  # none is opened while it is not set; in the peer's loop
        self.gate.set()

    def wait_for(self, kind: str, count: int = 1) -> None:
        """Return once so many requests of a kind have come."""
        with self.heard:
            assert self.heard.wait_for(
                lambda: sum(r["type"] == kind for r in self.requests) >= count, timeout=20
            )

    def wait_for_sockets(self, count: int) -> None:
        """Return once so many sockets have been opened, those before included."""
        with self.heard:
            assert self.heard.wait_for(lambda: len(self.queries) >= count, timeout=20)

    def wait_for_knocks(self, count: int) -> None:
        """Return once so many sockets have been asked for."""
        with self.heard:
            assert self.heard.wait_for(lambda: self.knocks >= count, timeout=20)

    def wait_for_none(self) -> None:
        """Return once no socket is open."""
        with self.heard:
            assert self.heard.wait_for(lambda: not self.sockets, timeout=20)

    def make(self, code: str) -> list[dict[str, Any]]:
        """Return what is to happen for a piece of code."""
        return list(self.answers.get(code, []))

    def call(self, action: Any) -> None:
        """Run something in the peer's loop, and return once that is done.

        Requests may be read already that it has not looked at: what were done later would come
        after their answers.
        """

        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self.loop).result(20)

    def send(self, event: dict[str, Any]) -> None:
        """Send an event to every attached client."""
        self.call(lambda: [socket.send(event) for socket in self.sockets[:1]])

    def tell(self, session: str, event: dict[str, Any]) -> None:
        """Send an event to all who follow the session; in the peer's loop."""
        log = self.logs.setdefault(session, [])
        event = {**event, "seq": event.get("seq", len(log) + 1)}
        log.append(event)
        for socket in self.sockets:
            if socket.session == session:
                socket.put(event)

    def cut(self) -> None:
        """Cut every connection."""
        self.call(lambda: [socket.cut() for socket in tuple(self.sockets)])

    def close(self, code: int, reason: str = "") -> None:
        """Close every socket."""
        self.call(lambda: [socket.close(code, reason) for socket in self.sockets])

    def run(self, ready: threading.Event) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            self.stop = asyncio.Event()
            app = tornado.web.Application(
                [
                    (r"/v1/sessions/([^/]+)/ws", Socket, {"peer": self}),
                    (r"(/.*)", Page, {"peer": self}),
                ],
                log_function=lambda _: None,
            )
            server = tornado.httpserver.HTTPServer(app)
            listener = tornado.netutil.bind_sockets(0, "127.0.0.1")
            server.add_sockets(listener)
            self.url = f"http://127.0.0.1:{listener[0].getsockname()[1]}"
            ready.set()
            await self.stop.wait()
            server.stop()
            for socket in self.sockets:
                socket.close(1001)
            await server.close_all_connections()

        asyncio.run(serve())


class Socket(tornado.websocket.WebSocketHandler):
    def initialize(self, peer: Peer) -> None:
        self.peer = peer
        self.held = peer.held

    async def prepare(self) -> None:
        with self.peer.heard:
            self.peer.knocks += 1
            self.peer.heard.notify_all()
        await self.peer.gate.wait()
        if self.request.headers.get("Authorization") != f"Bearer {self.peer.token}":
            self.set_status(401)
            self.finish({"error": {"code": "unauthorized", "message": "wrong token"}})

    def select_subprotocol(self, offered: list[str]) -> str | None:
        return next((name for name in offered if name in self.peer.subprotocols), None)

    def open(self, session: str) -> None:
        self.session = session
        self.peer.sockets.append(self)
        fields = {"generation": 1, "state": "fresh", "profile": "python"}
        fields |= self.peer.attach.get(session, {})
        self.generation = fields["generation"]
        log = self.peer.logs.setdefault(session, [])
        fields |= {"seq": len(log), "open": self.peer.open.get(session, [])}
        after = int(self.get_query_argument("after", str(len(log))))
        first = max(after, self.peer.gone.get(session, 0))
        if first > after:
            fields["missed"] = [after + 1, first]
        fields |= self.peer.attach.get(session, {})
        self.put({"type": "session", "session": session, **fields})
        for event in log[first:]:
            self.put(event)
        with self.peer.heard:
            self.peer.queries.append(
                {key: self.get_query_argument(key) for key in self.request.query_arguments}
            )
            self.peer.heard.notify_all()

    def on_close(self) -> None:
        with self.peer.heard:
            if self in self.peer.sockets:
                self.peer.sockets.remove(self)
            self.peer.heard.notify_all()

    def cut(self) -> None:
        self.on_close()
        if self.ws_connection is not None:
            self.ws_connection.stream.close()

    def send(self, event: dict[str, Any]) -> None:
        if event["type"] in ("reply", "pong", "fault"):
            self.put(event)
        else:
            self.peer.tell(self.session, event)

    def put(self, event: dict[str, Any]) -> None:
        if self.selected_subprotocol == "broker.v1.msgpack":
            self.write_message(msgpack.packb(event), binary=True)
        else:
            self.write_message(json.dumps(event))

    def on_message(self, frame: bytes | str) -> None:
        request = json.loads(frame) if isinstance(frame, str) else msgpack.unpackb(frame)
        # Before it is answered: who has the answer may look.
        with self.peer.heard:
            self.peer.requests.append(request)
            self.peer.heard.notify_all()
        match request["type"]:
            case "execute":
                self.peer.open.setdefault(self.session, []).append(request["id"])
                self.play(request["id"], list(self.peer.make(request["code"])))
            case "interrupt" if self.held:
                for request_id, rest in [*self.held.items()]:
                    del self.held[request_id]
                    self.play(request_id, rest or [{"type": "done", "status": "interrupted"}])
                self.send({"type": "reply", "id": request["id"], "interrupted": request_id})
            case "interrupt":
                fault = {"code": "not_running", "message": "nothing runs"}
                self.send({"type": "fault", "id": request["id"], **fault})
            case "restart":
                self.generation += 1
                told = {"state": "lost", "reason": "restart", "generation": self.generation}
                self.send({"type": "session", "session": self.session, **told})
                self.send({"type": "reply", "id": request["id"], "generation": self.generation})
            case "configure" if self.peer.configures == "ignores":
                pass
            case "configure" if (
                "REFUSED" in request.get("env", {}) or self.peer.configures == "refuses"
            ):
                fault = {"code": "bad_message", "message": "not that", "field": "env"}
                self.send({"type": "fault", "id": request["id"], **fault})
            case "configure":
                self.send({"type": "reply", "id": request["id"]})
            case "close":
                self.send({"type": "reply", "id": request["id"]})
                self.close(1000)
            case "tools":
                names = [tool["name"] for tool in request["tools"]]
                self.send({"type": "reply", "id": request["id"], "tools": names})
            case "ping":
                self.send({"type": "pong", "id": request["id"]})

    def play(self, request_id: str, events: list[dict[str, Any]]) -> None:
        while events:
            event = events.pop(0)
            match event.get("do"):
                case "wait":
                    self.held[request_id] = events
                    return
                case "close":
                    self.on_close()  # what follows is not for who is sent away
                    self.close(event["code"], event.get("reason"))
                    continue
                case "cut":
                    self.cut()
                    continue
                case "deaf":
                    self.peer.open[self.session].remove(request_id)
                    return
                case "fault":
                    self.peer.open[self.session].remove(request_id)
                    fault = {k: v for k, v in event.items() if k != "do"}
                    self.send({"type": "fault", "id": request_id, **fault})
                    return
            if event["type"] == "done":
                self.peer.open[self.session].remove(request_id)
                event = {"generation": self.generation, "duration": 0.01, **event}
            self.send(event if event["type"] == "session" else {"id": request_id, **event})
            if event["type"] == "done":
                return
        self.play(request_id, [{"type": "done", "status": "ok", "execution_count": 1}])


class Page(tornado.web.RequestHandler):
    def initialize(self, peer: Peer) -> None:
        self.peer = peer

    def answer(self, path: str) -> None:
        query = {key: self.get_query_argument(key) for key in self.request.query_arguments}
        body = json.loads(self.request.body) if self.request.body else None
        self.peer.asked.append((self.request.method or "", path, query, body))
        status, told = 401, {"error": {"code": "unauthorized", "message": "wrong token"}}
        if self.request.headers.get("Authorization") == f"Bearer {self.peer.token}":
            missing = {"error": {"code": "unknown_session", "message": f"no such thing: {path}"}}
            found = self.peer.http.get((self.request.method or "", path), (404, missing))
            status, told = found(query) if callable(found) else found
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(told if isinstance(told, str) else json.dumps(told))

    get = post = put = delete = answer


@contextmanager
def running_peer() -> Iterator[Peer]:
    """Run a peer in a thread of its own; every client of it is gone afterwards."""
    scripted = Peer()
    ready = threading.Event()
    thread = threading.Thread(target=scripted.run, args=(ready,))
    thread.start()
    assert ready.wait(20)
    try:
        yield scripted
    finally:
        scripted.call(scripted.stop.set)
        thread.join(20)
    assert not thread.is_alive()
