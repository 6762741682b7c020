"""Source text of kernels, from a plan: C++ and Triton."""
