"""papermill, with a parameter. Arguments: directory, and the URL of a gateway or nothing.

Without one, kernels are those of the kernelspecs here.
"""

import json
import sys
from pathlib import Path

import nbformat
import papermill
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

directory, *gateway = sys.argv[1:]
chosen = {}
if gateway:
    from jupyter_server.gateway.gateway_client import GatewayClient
    from jupyter_server.gateway.managers import GatewayKernelManager

    client = GatewayClient.instance()
    client.url = gateway[0]
    client.ws_url = gateway[0].replace("http", "ws", 1)
    chosen["kernel_manager_class"] = GatewayKernelManager


def ran(name, *codes, **parameters):
    cells = [new_code_cell(code) for code in codes]
    cells[0].metadata.tags = ["parameters"]
    source, target = Path(directory, f"{name}.ipynb"), Path(directory, f"{name}-ran.ipynb")
    nbformat.write(new_notebook(cells=cells), source)
    try:
        papermill.execute_notebook(
            source,
            target,
            parameters=parameters,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            **chosen,
        )
    except PapermillExecutionError as error:
        told["failed"] = error.ename
    return [
        [one.get("text") or one.get("data", {}).get("text/plain") for one in cell.outputs]
        for cell in nbformat.read(target, 4).cells
        if cell.cell_type == "code"
    ]


told = {}
seen = f"import os\nos.path.exists({directory!r})"
told["ran"] = ran("sum", "x = 1", "print('hello')\nx * 7", seen, x=6)
told["until"] = ran("fails", "x = 1", "1 / 0", "'never'")
print(json.dumps(told))
