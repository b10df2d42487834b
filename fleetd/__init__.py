"""fleetd: fleet management for OpenMV cameras."""

__version__ = "0.1.0"
