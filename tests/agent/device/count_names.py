"""On MicroPython: load every module of the agent in a folder, then let it say how many names it holds.

Some only load where the firmware has what they need; their names are in memory all the same.
"""

import os
import sys

import micropython

for entry in os.ilistdir(sys.argv[1]):
    if entry[0] != "main.mpy":
        try:
            __import__("camera_agent." + entry[0].split(".")[0])
        except Exception as error:
            print(entry[0], repr(error))
micropython.qstr_info()
