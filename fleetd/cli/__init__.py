"""Command lines: `fleetctl` speaks HTTP only and runs anywhere; `fleetd` is the daemon."""
