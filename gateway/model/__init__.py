"""What are the things of the common model? Plain values; nothing here does anything to the world."""
