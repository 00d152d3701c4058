"""What users of jupyter_kernel_client do. Arguments: URL, token, protocol, a live kernel."""

import json
import sys
import threading

from jupyter_kernel_client import JupyterKernelClient
from jupyter_kernel_client.wsclient import JupyterSubprotocol, WSSession

url, token, protocol, live = sys.argv[1:]
if protocol == "V1":
    # Release 1.0.2 writes a line to its log with a field that its v1 messages do not have, and
    # takes in none for that. With the field it works.
    plain = WSSession.deserialize
    WSSession.deserialize = lambda *args, **kwargs: plain(*args, **kwargs) | {"channel": None}
settings = {"subprotocol": JupyterSubprotocol[protocol]}
told = {}


def text(reply):
    return "".join(one.get("text") or one["data"]["text/plain"] for one in reply["outputs"])


with JupyterKernelClient(server_url=url, token=token, client_kwargs=settings) as kernel:
    told["listed"] = kernel.id in {one["id"] for one in kernel.list_kernels()}
    told["language"] = kernel.kernel_info["language_info"]["name"]
    told["result"] = text(kernel.execute("x = 6\nprint('hello')\nx * 7"))
    failed = kernel.execute("1 / 0")
    told["failed"] = failed["status"], failed["outputs"][0]["ename"]
    answers = {
        "stdin_hook": lambda message: kernel._manager.client.input("Ann"),
        "allow_stdin": True,
    }
    told["asked"] = text(kernel.execute("input('name? ')", **answers))
    shown = kernel.execute("h = display('a', display_id=True)\nh.update('b')")["outputs"]
    told["updated"] = [one["data"]["text/plain"] for one in shown]
    told["variables"] = [one["name"] for one in kernel.list_variables()]

    def interrupt(message):
        if message["header"]["msg_type"] == "stream":
            threading.Thread(target=kernel.interrupt).start()

    endless = "print('up', flush=True)\nwhile True: pass"
    reply = kernel.execute_interactive(endless, output_hook=interrupt)
    told["interrupted"] = reply["content"]["ename"]
    kernel.restart()
    told["restarted"] = kernel.execute("x")["outputs"][0]["ename"]
    told["alive"] = kernel.is_alive()
    mine = kernel.id

with JupyterKernelClient(
    server_url=url, token=token, kernel_id=live, client_kwargs=settings
) as kernel:
    told["state"] = kernel.execution_state
    told["ended"] = mine not in {one["id"] for one in kernel.list_kernels()}
    told["found"] = text(kernel.execute("answer"))

with JupyterKernelClient(server_url=url, token=token, client_kwargs=settings) as kernel:
    # The polite way: a request over the control channel, and asking until the kernel is gone.
    kernel._manager.shutdown_kernel(now=False, timeout=5)
    told["politely"] = kernel.has_kernel
print(json.dumps(told))
