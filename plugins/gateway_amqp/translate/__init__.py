"""What are messages and refusals of the common model to AMQP clients, and back?"""
