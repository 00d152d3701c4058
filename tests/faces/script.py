"""What the scripted client does, step by step: the same against any Jupyter server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from tests.faces.transcripts import Transcript, normal, transcript
from tests.jupyter.messages import LEGACY, V1
from tests.jupyter.rest import TIMEOUT, Answer, Place, asked
from tests.jupyter.sockets import Socket, socket

Step = Callable[["Client"], Awaitable[None]]
STEPS: dict[str, Step] = {}
STATES = "states about no request"
LEGACY_STEPS: dict[str, Step] = {}  # what only JSON can leave out

# Ends only when it is interrupted, and says before that it is up.
ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.02)"
ECHO = """def opened(comm, message):
    print("opened", [bytes(one) for one in message["buffers"]], message["content"]["data"])
    @comm.on_msg
    def told(message):
        comm.send({"back": message["content"]["data"]},
                  buffers=[bytes(one)[::-1] for one in message["buffers"]])
get_ipython().kernel.comm_manager.register_target("echo", opened)"""
BUFFERS = [bytes(range(256)), b"", b"\xff\x00" * 40_000]


@dataclass
class Client:
    """The scripted client of one kernel; what it wants to be compared goes into `told`."""

    place: Place
    kernel: str
    framing: str
    stack: AsyncExitStack
    sockets: dict[str, Socket] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    told: list[Any] = field(default_factory=list)
    ended: bool = False  # the kernel, by the script

    @property
    def path(self) -> str:
        return f"/api/kernels/{self.kernel}"

    @property
    def one(self) -> Socket:
        return self.sockets["one"]

    async def open(self, name: str, session: str | None = None) -> Socket:
        """Open a socket, and wait until it is told what is published."""
        opening = socket(self.place, self.kernel, self.framing, session)
        opened = self.sockets[name] = await self.stack.enter_async_context(opening)
        await opened.done(await opened.send("shell", "kernel_info_request", {}))
        return opened

    def named(self, name: str, message_id: str) -> str:
        """Give a request the name by which the transcript knows it."""
        self.names[message_id] = name
        return message_id

    async def run(self, name: str, code: str, **content: Any) -> None:
        """Run code to its end."""
        await self.one.done(self.named(name, await self.one.execute(code, **content)))

    async def ask(self, kind: str, channel: str = "shell", **content: Any) -> None:
        """Make another request, and wait for its end."""
        sent = await self.one.send(channel, f"{kind}_request", content)
        await self.one.done(self.named(kind, sent))

    async def rest(self, method: str, path: str, body: object = None) -> Answer:
        """Make a request beside the sockets, and have its answer compared."""
        answer = await asked(self.place, method, path, body)
        self.told.append((f"{method} {normal(path)}", answer.status, shape(answer)))
        return answer

    async def awake(self) -> None:
        """Wait until the kernel answers: what is sent during a restart, a server may lose."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                asked_for = await self.one.send("shell", "kernel_info_request", {})
                try:
                    await asyncio.wait_for(self.one.done(asked_for), TIMEOUT / 10)
                except TimeoutError:
                    continue
                return

    async def rest_of_idle(self) -> None:
        """Ask for the kernel's model once it says `idle`: of that, a server may hear late."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                model = (await asked(self.place, "GET", self.path)).body
                if model.get("execution_state") == "idle":
                    break
                await asyncio.sleep(0.05)  # there is no event for it
        await self.rest("GET", self.path)

    async def transcript(self) -> Transcript:
        """Return what came, once nothing more can come of what was asked."""
        for one in self.sockets.values():
            if one.closed_with is None and not self.ended:
                await one.done(await one.send("shell", "kernel_info_request", {}))
        return transcript(self.sockets, self.names)


def shape(answer: Answer) -> Any:
    """Return an answer's sense: its fields, and of a model what does not tell the time."""
    body = normal(answer.body) if "json" in answer.headers.get("content-type", "") else None
    if isinstance(body, dict) and "message" in body:
        return sorted(set(body) & {"message", "reason"})  # in whose words, is each server's own
    return body


@asynccontextmanager
async def client(place: Place, framing: str) -> AsyncIterator[Client]:
    """Make a kernel with one socket to it; both are gone with the block."""
    made = await asked(place, "POST", "/api/kernels", {"name": "python3"})
    assert made.status == 201, made.text
    kernel = made.body["id"]
    try:
        async with AsyncExitStack() as stack:
            scripted = Client(place, kernel, framing, stack)
            await scripted.open("one")
            yield scripted
    finally:
        await asked(place, "DELETE", f"/api/kernels/{kernel}")


def step(function: Step) -> Step:
    STEPS[function.__name__] = function
    return function


def legacy_step(function: Step) -> Step:
    LEGACY_STEPS[function.__name__] = function
    return function


@step
async def kernel_info(client: Client) -> None:
    await client.ask("kernel_info")
    await client.ask("kernel_info", "control")


@step
async def execute(client: Client) -> None:
    await client.run("first", "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    await client.run(
        "display", "from IPython.display import HTML, display\ndisplay(HTML('<b>b</b>'))"
    )
    await client.run("error", "1 / 0")
    await client.run("syntax", "def :")
    await client.run("nothing", "")
    await client.run("many", "for n in range(3000): print(n)")
    await client.run("after", "'ä\\u2028🐍'")


@step
async def unseen(client: Client) -> None:
    await client.run("silent", "x = 5\nprint(x)\nx", silent=True)
    await client.run("unstored", "x + 1", store_history=False)
    await client.run("counted", "x + 2")


@step
async def user_expressions(client: Client) -> None:
    await client.run(
        "asked", "x = 2", user_expressions={"good": "x * 21", "bad": "y", "worse": "x +"}
    )
    await client.run("failed", "1 / 0", user_expressions={"good": "x * 21"})


@step
async def queued_are_aborted(client: Client) -> None:
    failing = await client.one.execute("input()\n1 / 0", allow_stdin=True)
    client.named("failing", failing)
    await client.one.output(failing, "input_request")
    queued = [client.named(f"queued {n}", await client.one.execute(f"{n}")) for n in range(2)]
    # Its reply says that what was sent before has arrived.
    await client.one.reply(await client.one.send("control", "kernel_info_request", {}))
    await client.one.send("stdin", "input_reply", {"value": ""})
    for one in [failing, *queued]:
        await client.one.done(one)
    await client.run("after", "'goes on'")


@step
async def failing_on(client: Client) -> None:
    failing = await client.one.execute("input()\n1 / 0", allow_stdin=True, stop_on_error=False)
    client.named("failing", failing)
    await client.one.output(failing, "input_request")
    queued = client.named("queued", await client.one.execute("'runs'"))
    await client.one.reply(await client.one.send("control", "kernel_info_request", {}))
    await client.one.send("stdin", "input_reply", {"value": ""})
    await client.one.done(failing)
    await client.one.done(queued)


@step
async def on_at_the_error(client: Client) -> None:
    """Some wait for the error alone, ask whether the kernel is there, and go on."""
    for number in range(5):
        failing = client.named(f"failing {number}", await client.one.execute("1 / 0"))
        await client.one.output(failing, "error")
        await client.one.reply(await client.one.send("shell", "kernel_info_request", {}))
        await client.run(f"after {number}", "'goes on'")
        await client.one.done(failing)


@step
async def questions(client: Client) -> None:
    code = "from getpass import getpass\ninput('name? '), getpass('word? ')"
    asking = client.named("asking", await client.one.execute(code, allow_stdin=True))
    first = await client.one.output(asking, "input_request")
    await client.one.send("stdin", "input_reply", {"value": "Ann"}, parent=first["header"])

    def is_second(message: dict[str, Any]) -> bool:
        return message["channel"] == "stdin" and message["content"].get("password") is True

    second = await client.one.until(is_second, "the second question")
    await client.one.send("stdin", "input_reply", {"value": "x"}, parent=second["header"])
    await client.one.done(asking)
    await client.run("not allowed", "input('name? ')")


@step
async def about_code(client: Client) -> None:
    await client.run(
        "first",
        "import math\ndef area(radius):\n    'Of a circle.'\n    return math.pi * radius ** 2",
    )
    await client.ask("complete", code="math.sq", cursor_pos=7)
    await client.ask("complete", code="are", cursor_pos=3)
    await client.ask("complete", code="nothing_like_it", cursor_pos=15)
    await client.ask("inspect", code="area", cursor_pos=4, detail_level=0)
    await client.ask("inspect", code="nothing_like_it", cursor_pos=4, detail_level=0)
    for code in ("for n in range(3):", "1 + 1", "def :", "if 1:\n    x = 1"):
        await client.ask("is_complete", code=code)
    asked: dict[str, Any] = {
        "output": False,
        "raw": True,
        "hist_access_type": "range",
        "session": 0,
    }
    await client.ask("history", **asked, start=1, stop=2)


@step
async def unknown_types(client: Client) -> None:
    for channel in ("shell", "control"):
        for kind in ("nonsense_request", "nonsense"):
            sent = await client.one.send(channel, kind, {"code": "1"})
            await client.one.idle(client.named(f"{kind} on {channel}", sent))
    await client.run("after", "'goes on'")


@step
async def comms(client: Client) -> None:
    await client.run("target", ECHO)
    await client.ask("comm_info")
    comm = "11111111-2222-3333-4444-555555555555"
    opening = {"comm_id": comm, "target_name": "echo", "data": {"hello": 1}}
    sent = await client.one.send("shell", "comm_open", opening, buffers=BUFFERS)
    await client.one.idle(client.named("open", sent))
    message = {"comm_id": comm, "data": {"n": [1, 2]}}
    sent = await client.one.send("shell", "comm_msg", message, buffers=BUFFERS)
    await client.one.idle(client.named("message", sent))
    await client.ask("comm_info", target_name="echo")
    sent = await client.one.send("shell", "comm_close", {"comm_id": comm, "data": {}})
    await client.one.idle(client.named("close", sent))
    sent = await client.one.send("shell", "comm_open", opening | {"target_name": "nobody"})
    await client.one.idle(client.named("unknown", sent))
    await client.run(
        "from the kernel",
        "from comm import create_comm\n"
        "made = create_comm(target_name='page', data={'a': 1}, buffers=[b'\\x00\\xff', b'two'])\n"
        "made.send({'b': 2}, buffers=[memoryview(b'three')])\nmade.close()",
    )
    await client.run("display", "from IPython.display import display_png\n"
                     "display_png(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(9), raw=True)")  # fmt: skip


@step
async def updates(client: Client) -> None:
    await client.run("made", "handle = display('one', display_id='d1')\nhandle.update('two')")
    await client.run("updated", "handle.update('three')")
    await client.run(
        "cleared",
        "from IPython.display import clear_output\n"
        "print('a')\nclear_output(wait=True)\nprint('b')\nclear_output()",
    )


@step
async def interrupts(client: Client) -> None:
    running = client.named("over REST", await client.one.execute(ENDLESS))
    await client.one.output(running, "stream")
    waiting = client.named("waits", await client.one.execute("'waits'"))
    await client.one.reply(await client.one.send("control", "kernel_info_request", {}))
    await client.rest("POST", f"{client.path}/interrupt")
    await client.one.done(running)
    await client.one.done(waiting)
    running = client.named("over the channel", await client.one.execute(ENDLESS))
    await client.one.output(running, "stream")
    sent = await client.one.send("control", "interrupt_request", {})
    await client.one.reply(client.named("interrupt", sent))
    await client.one.done(running)
    await client.run("after", "'goes on'")


@step
async def restart(client: Client) -> None:
    await client.run("before", "x = 1")
    await client.rest("POST", f"{client.path}/restart")
    await client.awake()
    await client.run("after", "'x' in globals()")
    await client.rest_of_idle()
    # By these, a page takes it that the kernel has died.
    states = [
        one["content"]["execution_state"]
        for one in client.one.came
        if one["header"]["msg_type"] == "status" and not one["parent_header"]
    ]
    # Whether it hears of `starting`, depends on when a server connects again.
    client.told.append((STATES, None, sorted({"restarting", "dead"} & set(states))))


@step
async def several_sockets(client: Client) -> None:
    other = await client.open("other")
    await client.run("of one", "print('to all')\n'x'")
    sent = client.named("of other", await other.execute("print('by the other')\n'y'"))
    await other.done(sent)
    asking = client.named("asks", await other.execute("input('who? ')", allow_stdin=True))
    await other.output(asking, "input_request")
    await other.send("stdin", "input_reply", {"value": "the other"})
    await other.done(asking)
    await client.one.idle(asking)


@step
async def same_session_twice(client: Client) -> None:
    second = await client.open("second", session=client.one.session)
    client.told.append(("the first is closed", await client.one.until_closed(), None))
    await second.done(client.named("goes on", await second.execute("'goes on'")))


@step
async def models(client: Client) -> None:
    await client.rest("GET", "/api")
    await client.rest_of_idle()
    made = await client.rest("POST", "/api/kernels")
    location = urljoin(f"{client.place.url}/api/kernels", made.headers["location"])
    assert location == f"{client.place.url}/api/kernels/{made.body['id']}"
    path = f"/api/kernels/{made.body['id']}"
    listed = await asked(client.place, "GET", "/api/kernels")
    assert {client.kernel, made.body["id"]} <= {one["id"] for one in listed.body}
    await client.rest("DELETE", path)
    for method, of in (("GET", ""), ("DELETE", ""), ("POST", "/interrupt"), ("POST", "/restart")):
        await client.rest(method, path + of)
    await client.rest("POST", "/api/kernels", {"name": "no such kernel"})
    await client.rest("GET", "/api/kernelspecs/nothing")
    specs = await asked(client.place, "GET", "/api/kernelspecs")
    python = specs.body["kernelspecs"]["python3"]
    told = {"default": specs.body["default"], "has": sorted(python)}
    client.told.append(
        ("GET /api/kernelspecs", specs.status, told | {"spec": sorted(python["spec"])})
    )


@step
async def sessions(client: Client) -> None:
    wanted = {"path": "a.ipynb", "name": "a.ipynb", "type": "notebook"}
    made = await client.rest("POST", "/api/sessions", wanted | {"kernel": {"id": client.kernel}})
    path = f"/api/sessions/{made.body['id']}"
    await client.rest("GET", path)
    again = await client.rest("POST", "/api/sessions", wanted | {"kernel": {"name": "python3"}})
    assert again.body["id"] == made.body["id"]
    await client.rest("PATCH", path, {"path": "b.ipynb", "name": "b.ipynb"})
    listed = await asked(client.place, "GET", "/api/sessions")
    assert [one["path"] for one in listed.body if one["id"] == made.body["id"]] == ["b.ipynb"]
    await client.rest("DELETE", path)
    client.ended = True
    await client.rest("GET", path)
    await client.rest("GET", client.path)


def bare(kind: str, number: int, content: dict[str, Any], **header: Any) -> dict[str, Any]:
    """Return a message with nothing but what every client sends."""
    return {
        "header": {"msg_id": f"{number:032x}", "msg_type": kind, "version": "5.0"} | header,
        "parent_header": {},
        "metadata": {},
        "content": content,
    }


@legacy_step
async def as_programs_send(client: Client) -> None:
    """Leave out what those leave out, and say oddly what they say oddly."""
    code = {"code": "6 * 7", "silent": False}
    full = {"username": "u", "session": client.one.session, "date": "2020-01-01T00:00:00Z"}
    undated = {"username": "u", "session": client.one.session}
    shell = {"channel": "shell"}
    odd: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "without channel": (full, {}),
        "with null for a channel": (full, {"channel": None}),
        "without date": (undated, shell),
        "with an empty date": (full | {"date": ""}, shell),
        "with a local date": (full | {"date": "2020-01-01T00:00:00.123456"}, shell),
        "with a number for a date": (full | {"date": 1577836800.5}, shell),
        "with an empty session": (full | {"session": ""}, shell),
        "without session": ({"username": "u"}, shell),
        "with a mapping of buffers": (full, shell | {"buffers": {}}),
        "with no buffers": (full, shell | {"buffers": []}),
        "with the type at the top": (full, shell | {"msg_type": "execute_request"}),
    }
    for number, (name, (header, rest)) in enumerate(odd.items()):
        message = bare("execute_request", number, code, **header) | rest
        await client.one.done(client.named(name, await client.one.send_as_it_is(message)))
    # No such channel: nobody answers, and the socket stays open.
    lost = bare("execute_request", len(odd), code, **full) | {"channel": "nothing"}
    client.named("on no channel", await client.one.send_as_it_is(lost))
    await client.run("after", "'goes on'")


def steps(framing: str) -> dict[str, Step]:
    """Return the script's steps for a framing."""
    return {V1: STEPS, LEGACY: STEPS | LEGACY_STEPS}[framing]
