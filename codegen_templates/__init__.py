"""Jinja templates of the generated kernels; all decisions are in the plan they are given."""
