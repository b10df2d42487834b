"""The contract between cameras, fleetd and everyone who subscribes: topics, messages, manifest, limits.

`camera_agent/protocol.py` mirrors this package for MicroPython; `tests/contract` keeps the two together.
"""
