"""What do two ZeroMQ peers say to each other on a byte stream (ZMTP 3.1)?"""
