"""Runs: their folders, their training, what is written while they train, and their evaluation."""
