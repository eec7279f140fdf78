"""Training and testing through MMEngine's Runner: reading and checking a config, the run, what it logs."""
