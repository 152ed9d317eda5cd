"""How do ZeroMQ peers meet the common model?"""
