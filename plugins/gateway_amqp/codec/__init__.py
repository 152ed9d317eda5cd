"""How do bytes become AMQP frames, methods and contents, and back?"""
