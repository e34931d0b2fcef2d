"""Labelled rooms, built by rule and seen by a sensor."""
