"""Try a launcher in this process, as whoever it runs, and print as JSON what came of it.

`python -m tests.kernels.trial DIRECTORY`
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.kernels.talk import launching, talking

CELL = "import os; print(os.getuid(), os.getcwd(), os.listdir()); open('x', 'w').write('y')"


async def attempt(directory: Path) -> dict[str, Any]:
    """Shut kernels in as well as it goes; return how well that is."""
    async with launching(directory, "standard") as launcher:
        unsafe = [finding for finding in await launcher.self_test() if not finding.safe]
        async with talking(launcher) as one, talking(launcher) as other:
            said = [(await talk.run(CELL)).text() for talk in (one, other)]
            owners = [
                os.stat(talk.kernel.workspace.descriptor).st_uid
                for talk in (one, other)
                if talk.kernel.workspace is not None
            ]
            usage = one.kernel.usage()
            burn = "import time; began = time.process_time()\n"
            burn += "while time.process_time() - began < 0.3: pass\n"
            one.start(f"{burn}import os; os._exit(3)")
            async with asyncio.timeout(10):
                reason = await one.kernel.exited
        return {
            "level": launcher.level,
            "mode": launcher.mode,
            "unsafe": unsafe,
            "said": said,
            "owners": owners,
            "memory": usage.memory,
            "reason": reason,
            "spent": (one.kernel.spent or 0.0) - (usage.cpu_seconds or 0.0),
        }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(attempt(Path(sys.argv[1])))))
