"""Who may talk to ZeroMQ endpoints, and who is it that talks?"""
