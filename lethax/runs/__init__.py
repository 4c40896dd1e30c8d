"""Runs: their folders, what is written while they train, how they train, and how they are judged."""
