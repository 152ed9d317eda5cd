"""How does what must last get onto the disk, and back?"""
