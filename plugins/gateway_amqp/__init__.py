"""How do AMQP 0-9-1 clients meet the common model?"""
