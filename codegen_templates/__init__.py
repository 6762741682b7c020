"""Jinja templates of the generated kernels, where all decisions are in the plan; and of the report."""
