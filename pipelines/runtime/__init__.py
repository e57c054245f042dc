"""What several commands share: the driver of stages, progress, recipes, sweeps."""
