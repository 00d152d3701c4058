"""A session as the executor of a smolagents `CodeAgent`.

    agent = CodeAgent(tools=[…], model=model, executor=SessionExecutor(broker.session("chat-42")))

Tools are defined in the kernel, as with smolagents' other remote executors; the agent's state
goes there as data. What the tools need must be in the session's profile: nothing is installed.
"""

from __future__ import annotations

import ast
from io import BytesIO
from typing import Any

import PIL.Image
from smolagents.local_python_executor import CodeOutput
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import RemotePythonExecutor
from smolagents.serialization import SafeSerializer
from smolagents.tools import get_tools_definition_code
from smolagents.utils import AgentError

from broker.client.result import Result
from broker.client.sync import Session

from . import words

# What an agent's final answer was raised with, in full: an error's message on the wire is bounded.
_ANSWER = "import sys as _sys\nprint(_sys.last_value.value, end='')\ndel _sys"
_SET = "\nglobals().update(_deserialize(_sent))\ndel _sent, _deserialize"


class SessionExecutor(RemotePythonExecutor):
    """Runs the agent's code in a session. `timeout` in seconds for each step."""

    def __init__(
        self,
        session: Session,
        *,
        timeout: float | None = None,
        logger: AgentLogger | None = None,
    ) -> None:
        super().__init__([], logger or AgentLogger(level=LogLevel.ERROR))
        self.session = session
        self.timeout = timeout
        # Where smolagents looks for what was printed before an error.
        self.state: dict[str, Any] = {}
        self._definitions = ""
        self._is_gone = False

    def send_tools(self, tools: dict[str, Any]) -> None:
        """Define the tools in the kernel, and again in each kernel that follows it."""
        final = tools.get("final_answer")
        if final is not None and not hasattr(final, "_forward"):  # each run of an agent sends them
            self._patch_final_answer_with_exception(final)
        self._definitions = get_tools_definition_code(tools)
        self._define()

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        """Run code; raises AgentError with what a model is told of code that failed."""
        if self._is_gone:
            self._define()
        result = self.session.execute(code, timeout=self.timeout)
        logs = result.stdout + result.stderr
        self.state["_print_outputs"] = words.clipped(logs, words.MOST)
        if result.error is not None and result.error.name == self.FINAL_ANSWER_EXCEPTION:
            whole = self.session.execute(_ANSWER, silent=True)
            answer = whole.stdout if whole.status == "ok" else result.error.message
            output = self._deserialize_final_answer(answer)
            return CodeOutput(output=output, logs=logs, is_final_answer=True)
        # With the variables the tools go: what has run in a new kernel has run without them.
        self._is_gone = "lost" in (result.status, result.state)
        if result.status != "ok" or self._is_gone:
            raise AgentError(words.told(result), self.logger)
        return CodeOutput(output=_output(result), logs=logs, is_final_answer=False)

    def send_variables(self, variables: dict[str, Any]) -> None:
        """Set variables in the session; raises SerializationError for what is no data."""
        if variables:
            sent = SafeSerializer.dumps(variables, allow_pickle=False)
            code = SafeSerializer.get_deserializer_code(False) + _SET
            self.session.execute(code, inputs={"_sent": sent}, silent=True).raise_for_status()

    def cleanup(self) -> None:
        """Let go of the session, and keep it."""
        self.session.detach()

    def _define(self) -> None:
        self._is_gone = False
        self.session.execute(self._definitions, silent=True).raise_for_status()


def _output(result: Result) -> Any:
    """Return the value of the last expression: an image, plain Python data, or its text."""
    if result.images:
        return PIL.Image.open(BytesIO(result.images[-1]))
    if result.value is None:
        return None
    try:
        return ast.literal_eval(result.value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return result.value
