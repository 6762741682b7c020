"""Benchmarks of one function against PyTorch's own ways to compute it."""
