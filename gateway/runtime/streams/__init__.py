"""Who accepts, reads and writes byte streams, and what do they come through?"""
