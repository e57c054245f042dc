"""What the cells of a log mean: ids, times, numbers, conditions; the same whatever type a file stores them in."""
