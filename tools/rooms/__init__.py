"""What ``tools/quickstart_rooms.py`` is made of."""
