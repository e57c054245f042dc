"""A raw log to a prepared one: slices of time, growth of vocabularies, the manifest, a preview."""
