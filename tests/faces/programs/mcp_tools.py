"""A client of MCP that uses jupyter-mcp-server's tools. Arguments: URL, token, a live kernel."""

import asyncio
import json
import os
import sys
from pathlib import Path

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

url, token, live = sys.argv[1:]
SERVER = StdioServerParameters(
    command=str(Path(sys.executable).parent / "jupyter-mcp-server"),
    args=["--transport", "stdio", "--jupyter-url", url, "--jupyter-token", token],
    env=dict(os.environ),
)


async def main():
    told = {}
    async with stdio_client(SERVER) as streams, ClientSession(*streams) as session:
        await session.initialize()

        async def use(tool, **arguments):
            answer = await session.call_tool(tool, arguments)
            return "\n".join(getattr(one, "text", one.type) for one in answer.content)

        told["listed"] = live in await use("list_kernels")
        told["found"] = await use("execute_code", code="answer", kernel_id=live)
        told["kept"] = await use("execute_code", code="answer += 1; print(answer)", kernel_id=live)
        told["failed"] = await use("execute_code", code="1 / 0", kernel_id=live)
        told["after"] = await use("execute_code", code="answer", kernel_id=live)
        told["files"] = await use("list_files")
    return told


print(json.dumps(asyncio.run(main())))
