"""AutoGen's executor for Jupyter servers. Arguments: host with path, token, directory."""

import asyncio
import json
import sys

from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock
from autogen_ext.code_executors.docker_jupyter import DockerJupyterCodeExecutor
from autogen_ext.code_executors.docker_jupyter._jupyter_server import JupyterConnectionInfo

host, token, directory = sys.argv[1:]


async def main():
    told = {}
    server = JupyterConnectionInfo(host=host, use_https=False, token=token)
    async with DockerJupyterCodeExecutor(server, output_dir=directory) as executor:

        async def run(*codes):
            blocks = [CodeBlock(code=code, language="python") for code in codes]
            result = await executor.execute_code_blocks(blocks, CancellationToken())
            return [result.exit_code, result.output, len(result.output_files)]

        told["ran"] = await run("x = 6", "print('hello')\nx * 7")
        told["failed"] = await run("1 / 0")
        told["plotted"] = (await run("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()"))[
            2
        ]
        await executor.restart()
        told["restarted"] = await run("x")
    return told


print(json.dumps(asyncio.run(main())))
