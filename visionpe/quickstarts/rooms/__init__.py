"""Labelled rooms: trained, tested, shown."""
