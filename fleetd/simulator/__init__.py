"""Virtual cameras: the real camera_agent on the desk, with a real model, drawn pictures and injected faults.

Needs the extra `demo` (LiteRT, numpy, Pillow).
"""
