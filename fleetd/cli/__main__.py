"""`python -m fleetd.cli` is `fleetctl`."""

from fleetd.cli.main import main

main()
