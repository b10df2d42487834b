"""What `fleetd.ota` is made of: planning a rollout, changing it, and what follows from reports and the clock."""
