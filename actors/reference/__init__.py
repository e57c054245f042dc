"""The reference of a run: one actor, or several workers of Ray Train behind one."""
