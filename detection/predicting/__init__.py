"""Predictions for single images, and pictures of them."""
