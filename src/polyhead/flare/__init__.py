"""Deployment on NVIDIA FLARE: the only part that imports nvflare. It translates, and decides nothing."""
