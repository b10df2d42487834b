"""What attackers try, on real brokers and a real fleetd."""
