"""`start.py CASE COUNT`: cost.py and the stand-ins run where they lie, as the firmware's own modules do on a board.

DESK_ROM is their image, AGENT_ROM (optional) the agent's, which otherwise is loaded from files. What is done here is
part of no measurement, what remains of it is part of all.
"""

import os
import sys

import in_place

in_place.mount(os.getenv("DESK_ROM"), "/desk/code")
if os.getenv("AGENT_ROM"):
    in_place.mount(os.getenv("AGENT_ROM"), "/agent")
for name in ("in_place", "ffi", "uctypes", "vfs"):
    sys.modules.pop(name, None)
del in_place

import cost  # noqa: E402, F401
