"""What does a peer of a ROUTER endpoint say in Majordomo 0.1 or 0.2, and what does it mean in the common model?"""
