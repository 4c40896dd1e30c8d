"""Tables and figures, made from run folders and from nothing else."""
