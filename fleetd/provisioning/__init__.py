"""Bringing the camera agent onto a camera's USB drive: what is there, what belongs there, in which order.

    looking -> what a mounted drive holds          package -> the agent's files, compiled
    config  -> the camera's fleet/config.json      install -> the order of writing
    disk    -> one step on the drive at a time     label   -> a picture to print

Nothing here knows a server: the credential comes from a function that the caller gives.
"""
