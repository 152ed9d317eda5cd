"""How does a queue's message get to a plain PULL peer, and how is it known that it got there?

By ZMTP's own PING and PONG, over streams of our own: what lies before a PING that comes back was taken by the peer's libzmq. It is
settled then, and not before; what a peer did not pong goes back to the queue when the peer goes.
"""
