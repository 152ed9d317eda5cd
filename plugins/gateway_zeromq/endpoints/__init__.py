"""Which socket of which kind is there, and what does it do with messages?"""
