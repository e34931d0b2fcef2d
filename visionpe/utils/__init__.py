"""What the programs share: errors for users, files written whole, peak memory."""
