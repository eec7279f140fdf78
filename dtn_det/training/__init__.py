"""Training and testing with MMEngine's Runner: reading and checking configs, running, and parts that configs name."""
