"""What a search is made of: the sweep, its rungs and budget, its anchors, its results."""
