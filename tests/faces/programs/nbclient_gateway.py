"""nbclient on kernels of a gateway, by jupyter_server's manager. Arguments: URL."""

import asyncio
import json
import sys

from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.gateway.managers import GatewayKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

gateway = GatewayClient.instance()
gateway.url = sys.argv[1]
# What it takes for that otherwise is the address in small letters: another token.
gateway.ws_url = sys.argv[1].replace("http", "ws", 1)
told = {}


async def ran(*codes):
    notebook = new_notebook(cells=[new_code_cell(code) for code in codes])
    client = NotebookClient(
        notebook, kernel_manager_class=GatewayKernelManager, kernel_name="python3", timeout=30
    )
    try:
        await client.async_execute()
    except CellExecutionError as error:
        told["failed"] = error.ename
    return [
        [one.get("text") or one.get("data", {}).get("text/plain") for one in cell.outputs]
        for cell in notebook.cells
    ]


async def main():
    told["ran"] = await ran("x = 6\nprint('hello')", "x * 7", "display('shown')")
    told["until"] = await ran("'first'", "1 / 0", "'never'")


asyncio.run(main())
print(json.dumps(told))
