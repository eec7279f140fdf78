"""Training and testing with MMEngine's Runner: configs and their checks, runs, and parts for use in configs."""
