"""Execution: build, cache and launch of kernels, and the dense reference."""
