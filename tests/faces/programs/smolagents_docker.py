"""smolagents' Docker executor, with a daemon that starts nothing. Arguments: host, port, token.

Where its container would be, there is the server; the token, which it makes up, is the server's.
"""

import json
import sys
import types
from unittest.mock import patch

import docker
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import DockerExecutor
from smolagents.utils import AgentError

host, port, token = sys.argv[1:]
container = types.SimpleNamespace(
    status="running", short_id="none", stop=lambda: None, remove=lambda: None
)
daemon = types.SimpleNamespace(
    images=types.SimpleNamespace(get=lambda name: name),
    containers=types.SimpleNamespace(run=lambda image, **options: container),
)
told = {}
with (
    patch.object(docker, "from_env", lambda: daemon),
    patch("smolagents.remote_executors.secrets.token_urlsafe", lambda length: token),
):
    executor = DockerExecutor(
        [], AgentLogger(level=LogLevel.OFF), host=host, port=port, build_new_image=False
    )
executor.send_variables({"rows": [1, 2, 4]})
first = executor("total = sum(rows)\nprint('hello')\ntotal")
told["first"] = [first.output, first.logs, first.is_final_answer]
told["kept"] = executor("total + 1").output  # over a connection of its own
try:
    executor("1 / 0")
except AgentError as error:
    told["failed"] = "ZeroDivisionError" in str(error)
told["after"] = executor("total").output
executor.cleanup()
print(json.dumps(told))
