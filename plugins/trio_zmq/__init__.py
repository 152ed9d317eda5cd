"""How does a trio program use ZeroMQ sockets?"""
