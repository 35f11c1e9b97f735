"""Many runs: the product of lists of flags, here or on a cluster."""
