"""One display in all the places where it is shown, changed in one step however many they are."""

from __future__ import annotations

import json
from typing import Any, Final

SMALL: Final = 256  # bytes of JSON that have room in every place
GAP: Final = "left_out"  # the type of what stands where text is missing: {size, file?}
Output = dict[str, Any]


class Shown:
    """The outputs that show one display; the first `_changed` of them as it was changed last.

    They are written at the end: a thousand places, changed a thousand times, would hold up others.
    """

    __slots__ = ("_changed", "_latest", "_outputs", "size")

    def __init__(self) -> None:
        self.size = 0  # bytes of all the places together, for whoever counts them
        self._outputs: list[Output] = []
        self._latest: Output = {}
        self._changed = 0

    def __len__(self) -> int:
        return len(self._outputs)

    def add(self, output: Output) -> None:
        """Show it in one more place, as it is there."""
        self._outputs.append(output)

    def change(self, data: Any, metadata: Any) -> None:
        """Have something else shown in all the places there are by now."""
        self._latest, self._changed = {"data": data, "metadata": metadata}, len(self._outputs)

    def settle(self) -> None:
        """Write into each place what it is to show. Safe to call again."""
        for output in self._outputs[: self._changed]:
            output.update(self._latest)

    def settle_within(self, room: int) -> int:
        """Write it into the last place, and into those before that for `room` bytes of JSON.

        Return the room that is left. The places that have none say how much they do not show.
        """
        self.settle()
        again = self._changed - 1
        if again < 1 or (size := len(json.dumps(self._latest))) <= SMALL:
            return room
        fitting = min(again, room // size)
        note = f"[{size:,} bytes that are shown further down]"
        for output in self._outputs[: again - fitting]:
            output.update({"data": {"text/plain": note}, "metadata": {}})
        return room - fitting * size
