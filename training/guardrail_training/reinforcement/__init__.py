"""Reinforcement learning of adapters: PPO and its cheaper siblings without a value function."""
