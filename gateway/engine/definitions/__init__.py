"""What may be defined, and which settings come from policies?"""
