"""How does a program speak TGP/1 to a gateway?"""
