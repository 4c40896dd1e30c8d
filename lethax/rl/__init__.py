"""Meta-reinforcement learning: environments, rollouts, policy gradients, trust-region outer steps."""
