"""What can be asked of a running broker, and who asks it?"""
