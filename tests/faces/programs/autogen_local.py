"""AutoGen's executor without a server: kernels by jupyter_client. Arguments: directory."""

import asyncio
import json
import sys

from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock
from autogen_ext.code_executors.jupyter import JupyterCodeExecutor


async def main():
    told = {}
    async with JupyterCodeExecutor(output_dir=sys.argv[1], timeout=60) as executor:

        async def run(*codes):
            blocks = [CodeBlock(code=code, language="python") for code in codes]
            result = await executor.execute_code_blocks(blocks, CancellationToken())
            return [result.exit_code, result.output, len(result.output_files)]

        told["ran"] = await run("x = 6", "print('hello')\nx * 7")
        told["failed"] = await run("1 / 0")
        plot = "import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()"
        told["plotted"] = (await run(plot))[2]
        seen = await run(f"import os\nos.path.exists({sys.argv[1]!r})")
        told["seen"] = seen[1].strip()
        await executor.restart()
        told["restarted"] = await run("x")
    return told


print(json.dumps(asyncio.run(main())))
