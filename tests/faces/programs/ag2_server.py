"""ag2's executor for Jupyter servers. Arguments: host with path, token, directory."""

import json
import sys

from autogen.coding import CodeBlock
from autogen.coding.jupyter import JupyterCodeExecutor, JupyterConnectionInfo

host, token, directory = sys.argv[1:]
told = {}
server = JupyterConnectionInfo(host=host, use_https=False, token=token)
with JupyterCodeExecutor(server, output_dir=directory) as executor:

    def run(*codes):
        result = executor.execute_code_blocks(
            [CodeBlock(code=code, language="python") for code in codes]
        )
        return [result.exit_code, result.output, len(result.output_files or [])]

    told["ran"] = run("x = 6", "print('hello')\nx * 7")
    told["failed"] = run("1 / 0")
    told["plotted"] = run("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()")[2]
    executor.restart()
    told["restarted"] = run("x")
print(json.dumps(told))
