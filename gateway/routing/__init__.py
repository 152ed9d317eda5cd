"""Which destinations does a message reach?"""
