"""What is published later, and when is that?"""
