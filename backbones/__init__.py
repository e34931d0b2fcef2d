"""Backbones registered with timm."""
