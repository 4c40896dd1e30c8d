"""Meta-reinforcement learning: environments with tasks, policies, rollouts and trust-region outer steps."""
