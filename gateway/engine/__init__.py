"""What happens to messages, queues and consumers? Synchronous: no I/O, no clock of its own."""
