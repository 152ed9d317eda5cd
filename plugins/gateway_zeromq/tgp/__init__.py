"""What does a peer of a ROUTER endpoint say in TGP/1, and what does it mean in the common model?"""
