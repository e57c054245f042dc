"""What the cells of a log mean (ids, times, numbers, conditions), whatever type a file stores them in."""
