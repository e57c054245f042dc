"""Ray actors, tasks and Ray Data callables: they hold state and devices and forward to diet_ray."""
