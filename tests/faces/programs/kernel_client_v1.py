"""jupyter_kernel_client as it is, in its v1 mode. Arguments: URL, token."""

import json
import logging
import sys

from jupyter_kernel_client import JupyterKernelClient
from jupyter_kernel_client.wsclient import JupyterSubprotocol

url, token = sys.argv[1:]
said = set()


class Heard(logging.Handler):
    def emit(self, record):
        words, _, what = record.getMessage().rpartition(": ")
        if words.startswith("error from callback"):
            said.add(what)


logging.getLogger("websocket").addHandler(Heard())
settings = {"subprotocol": JupyterSubprotocol.V1, "timeout": 20}
with JupyterKernelClient(server_url=url, token=token, client_kwargs=settings) as kernel:
    try:
        ran = kernel.execute("6 * 7", timeout=5)
    except Exception as error:
        ran = type(error).__name__
print(json.dumps({"ran": ran, "said": sorted(said)}))
