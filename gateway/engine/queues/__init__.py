"""What happens in one queue, and to the messages in it?"""
