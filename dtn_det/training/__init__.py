"""Training and testing with MMEngine's Runner: configs and their checks, runs, and components for configs."""
