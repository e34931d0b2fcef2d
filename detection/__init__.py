"""Adapters to OpenMMLab."""
