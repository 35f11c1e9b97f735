"""What the mathematics of a VAE looks like."""
