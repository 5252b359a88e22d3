"""Runtime: run it. Collectives with autograd, the parallel module, verification."""
