"""What the paper measures of training and of trained runs: landscapes, conflict, attenuation, surfaces. Pure functions."""
