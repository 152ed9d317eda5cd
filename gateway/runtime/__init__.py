"""Who runs the engine: turns, commits, pages, sockets?"""
